"""Percent signs: what an answer with one may equal.

`50%` as the reference takes 0.5 and 50; 50 as the reference takes `50%` and 12.5 takes `12.5%`, but
0.5 takes neither `50%` nor `0.5%`. A list of percentages is taken item by item.
"""

from trillium_math.grading.exact import TooLarge, value_of
from trillium_math.grading.kinds import Answer, Formula, Sequence

_LISTS = frozenset({"", "{}", "()", "[]", "(]", "[)"})


def may_be_percent(answer: Answer) -> bool:
    """Take 12.5 for what a percentage is asked for; of 0.5 it is more likely the share itself."""
    if isinstance(answer, Sequence):
        return answer.kind in _LISTS and all(map(may_be_percent, answer.items))
    try:
        value = value_of(answer.node) if isinstance(answer, Formula) else None
    except TooLarge:
        return False
    return value is not None and (value.denominator == 1 or abs(value) > 1)


def divide_by_hundred(answer: Answer) -> Answer | None:
    """Return the share that a percentage, or each one of a list, is; None for other answers."""
    if isinstance(answer, Sequence) and answer.kind in _LISTS:
        shares = [share for item in answer.items if (share := divide_by_hundred(item))]
        return Sequence(answer.kind, tuple(shares)) if len(shares) == len(answer.items) else None
    if not isinstance(answer, Formula):
        return None
    return Formula(("div", answer.node, ("num", "100", 0)), "")
