"""The final answer inside a response: box, `####`, a phrase, tool output, or the last number.

One answer per response: where a source has several candidates the last one counts, so a list of
guesses earns nothing. All of it takes time linear in the text.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

Source = Literal["box", "hash", "phrase", "output", "number"]
SOURCES: tuple[Source, ...] = ("box", "hash", "phrase", "output", "number")

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*")
_PHRASE = re.compile(
    r"\banswers?\b[*_\s]{0,4}(?:[^.:=\n]{0,60}?\b(?:is|are)\b\s{0,3}:?|:|=)[*_\s]{0,6}",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.;](?=\s|$)|\n|\b(?:because|since|so)\b")
_INLINE = re.compile(r"\$([^$]+)\$|\\\((.{1,2000}?)\\\)")
_OUTPUT = "```output"
# What stands between "the answer is" and the answer, and says nothing of it.
_FILLER = re.compile(
    r"(?:therefore|thus|then|hence|just|simply|clearly|approximately|equal to|given by)\b[,:]?\s*",
    re.IGNORECASE,
)
_WHOLE = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
# A mixed number, or a number with its power, power of ten or denominator.
_NUMBER = re.compile(
    r"(?:(?<![\w)\].])[-\N{MINUS SIGN}\N{EN DASH}])?"
    r"(?:\d{1,3} \d+/\d+(?![\d/])"
    rf"|(?:{_WHOLE}(?:\.\d+)?|(?<![\w.])\.\d+)"
    r"(?:[eE][-+]?\d+(?!\w))?"
    r"(?:\s?(?:\\times|\\cdot|\N{MULTIPLICATION SIGN}|[*x])\s?(?=10\s?(?:\^|\*\*))10)?"
    r"(?:\s?(?:\^|\*\*)\s?(?:[-+]?\d+|\{\s?[-+]?\d+\s?\}))?"
    r"(?:\s?/\s?\d+(?:\.\d+)?)?)(?:\s?\\?%)?"
)


def extract_answer(response: str, sources: Sequence[Source] = SOURCES) -> str | None:
    """Return the answer of the first source in `sources` that has one.

    A response with boxes of which none is balanced has no answer, whatever else it says.
    """
    for source in sources:
        if source == "box" and _BOX.search(response):
            return find_box(response)
        answer = _FINDERS[source](response)
        if answer:
            return answer
    return None


def find_box(text: str) -> str | None:
    r"""Return the content of the last balanced `\boxed{...}`, or of `\boxed 5`."""
    closing = _match_braces(text)
    for match in reversed(list(_BOX.finditer(text))):
        start = match.end()
        if start < len(text) and text[start] == "{":
            if start in closing:
                return _strip(text[start + 1 : closing[start]])
        elif bare := re.match(r"[^\s{}$]+", text[start : start + 200]):
            return _strip(bare[0])
    return None


def _match_braces(text: str) -> dict[int, int]:
    """Map each opening brace to its closing one; escaped braces are characters."""
    closing: dict[int, int] = {}
    open_at: list[int] = []
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if match[0] == "{":
            open_at.append(match.start())
        elif match[0] == "}" and open_at:
            closing[open_at.pop()] = match.start()
    return closing


def _find_hash(text: str) -> str:
    _, mark, rest = text.rpartition("####")
    return _strip(rest.lstrip("#").strip().partition("\n")[0]) if mark else ""


def _find_phrase(text: str) -> str:
    last = _last(_PHRASE.finditer(text))
    if last is None:
        return ""
    rest = text[last.end() : last.end() + 2000]
    rest = rest[filler.end() :] if (filler := _FILLER.match(rest)) else rest
    inline = _INLINE.match(rest)
    if inline:
        return _strip(inline[1] or inline[2])
    end = _SENTENCE_END.search(rest)
    return _strip(rest[: end.start()] if end else rest)


def _find_output(text: str) -> str:
    _, mark, rest = text.rpartition(_OUTPUT)
    lines = rest.partition("```")[0].strip().splitlines() if mark else []
    return _strip(lines[-1]) if lines else ""


def _find_number(text: str) -> str:
    last = _last(_NUMBER.finditer(text))
    return last[0] if last else ""


def _last(matches: Iterator[re.Match[str]]) -> re.Match[str] | None:
    ending = deque(matches, maxlen=1)
    return ending[0] if ending else None


def _strip(text: str) -> str:
    r"""Drop surrounding space, emphasis and the `. / $` that ends a sentence or a formula."""
    return text.strip().strip("*").rstrip("./ ").strip()


_FINDERS: dict[Source, Callable[[str], str | None]] = {
    "box": find_box,
    "hash": _find_hash,
    "phrase": _find_phrase,
    "output": _find_output,
    "number": _find_number,
}
