"""What counts of an assistant turn: its spans in the rendered text, and replies of no use.

Parts of `rendering`, which finds the turns.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trillium.fields import Message
from trillium.tokenize_config import ScoredTurns

_EMPTY_THINK = re.compile(r"\s*(<think>)?\s*</think>\s*")
_END_THINK = re.compile(r"</think>\s*")
_REASONING = ("reasoning_content", "reasoning", "thinking")


class Unusable(Exception):
    """Leave a row out, for a reason that the report counts."""

    def __init__(self, reason: str) -> None:
        """Keep the reason, a few words without the row's content."""
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Turn:
    """Say where a turn stands in the text; `end` is behind its stop token, which begins at `stop`.

    A turn that is not exact was not rendered as a server would have asked for it.
    """

    start: int
    stop: int
    end: int
    is_exact: bool


def without_stop(text: str, stop: str) -> str:
    """Return a reply without a stop token at its end; raises Unusable for one inside."""
    if not stop or stop not in text:
        return text
    bare = text.rstrip().removesuffix(stop)
    if stop in bare:
        raise Unusable("stop token inside a reply")
    return bare


def check_fields(message: Message, said: str, stop: str) -> None:
    """Raise Unusable where a call or reasoning brings a stop token into a turn, which ends there.

    Fields that the template leaves out may hold one.
    """
    _, found, behind = said.partition(stop) if stop else (said, "", "")
    if found and behind.strip() and any(stop in text for text in _strings(_beside_text(message))):
        raise Unusable("stop token inside a reply")


def score_turn(
    message: Message, whole: str, turn: Turn, turns: ScoredTurns
) -> list[tuple[int, int]]:
    """Return the spans of a turn that count."""
    start = turn.start
    is_reasoning = "<think>" in message.text or any(map(message.fields.get, _REASONING))
    inserted = None if is_reasoning else _EMPTY_THINK.match(whole, start, turn.stop)
    if inserted:
        start = inserted.end()
    if turns == "final_answer":
        start = max([start, *(m.end() for m in _END_THINK.finditer(whole, start, turn.stop))])
    if turns != "explicit" or not isinstance(message.scored, tuple):
        return [(start, turn.end)] if turn.end > start else []
    said = whole[start : turn.stop]
    return [(start + one, start + other) for one, other in _explicit(message, said)]


def _explicit(message: Message, said: str) -> list[tuple[int, int]]:
    """Return the ranges of a message's text that count, as ranges of the turn; no token besides."""
    text = message.text.strip()
    behind = _behind_reasoning(message, said)
    first = said.find(text, behind)
    # A call may say the text as well; what opens the reply is the text.
    if first < 0 or (said[behind:first].strip() and said.count(text, behind) > 1):
        raise Unusable("turn not found")
    # Templates may trim either end.
    n_before = message.text.find(text)
    before, after = message.text[:n_before], message.text[n_before + len(text) :]
    shift = first - n_before
    lower = shift if said[behind:first].endswith(before) else first
    upper = first + len(text)
    upper += len(after) if said.startswith(after, upper) else 0
    clipped = [
        (max(shift + one, lower), min(shift + other, upper))
        for one, other in sorted(message.scored if isinstance(message.scored, tuple) else ())
    ]
    kept = [(one, other) for one, other in clipped if one < other]
    if not kept:
        raise Unusable("scored text left out by the template")
    return kept


def _behind_reasoning(message: Message, said: str) -> int:
    """Return where the reply proper may begin: reasoning may hold its text, too."""
    for name in _REASONING:
        value = message.fields.get(name)
        reasoning = value.strip() if isinstance(value, str) else ""
        if reasoning and reasoning in said:
            end = said.find(reasoning) + len(reasoning)
            closed = _EMPTY_THINK.match(said, end)
            return closed.end() if closed else end
    return 0


def _beside_text(message: Message) -> list[object]:
    blocks = message.content if isinstance(message.content, list) else []
    others = [value for block in blocks for key, value in block.items() if key != "text"]
    return [message.fields, *others]


def _strings(value: object) -> Iterator[str]:
    """Yield every string in a value read from JSON, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _strings([*value.keys(), *value.values()])
    elif isinstance(value, Sequence):
        for entry in value:
            yield from _strings(entry)
