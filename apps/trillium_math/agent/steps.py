"""Steps of a trajectory, as ranges of the tokens that were sampled.

A step ends at the newline of a line with letters or digits, or where its turn ends, so that
blank lines and fences join what follows. Nothing is tokenised again. What ends a turn belongs to
its last step, but to no leaf: a step is not the end of a text (arXiv 2406.18629).
"""

import re
from collections.abc import Callable, Sequence
from typing import Literal

StepUnit = Literal["line", "turn"]

_FENCE = re.compile(r"```\w*")


def has_content(text: str) -> bool:
    """Say whether a line holds more than space and a fence."""
    return any(character.isalnum() for character in _FENCE.sub("", text))


def split_steps(
    ids: Sequence[int],
    spans: Sequence[tuple[int, int]],
    decode: Callable[[Sequence[int]], str],
    *,
    unit: StepUnit = "line",
) -> list[tuple[int, int]]:
    """Return the token range of each step, in order; `spans` are the turns of the policy."""
    if unit == "turn":
        return [span for span in spans if span[0] < span[1]]
    steps = []
    for start, end in spans:
        first = start
        for place in range(start, end):
            is_line = "\n" in decode(ids[place : place + 1])
            if place + 1 == end or (is_line and has_content(decode(ids[first : place + 1]))):
                steps.append((first, place + 1))
                first = place + 1
    return steps


def strip_end(ids: Sequence[int], end_ids: frozenset[int]) -> tuple[int, ...]:
    """Return the tokens of a step without those that end a turn."""
    kept = len(ids)
    while kept and ids[kept - 1] in end_ids:
        kept -= 1
    return tuple(ids[:kept])
