"""Judgements of pairs as values: the question, the scores in an answer, votes and agreement.

Both responses are shown together and scored out of ten, the variant that agreed best with people in
arXiv 2408.08688, and in both orders, because judges favour a place. Nothing here asks a model.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

# "A: 7 B: 4" with what judges put around it. A sign and a number must follow the letter, and the B
# stand beside it: reasons speak of "A" and of numbers too.
_SCORE = r'\b{}\b[*"\s]*[:=][*"\s]*(\d+(?:\.\d+)?)'
_SCORES = re.compile(
    _SCORE.format("A")
    + r"(?:\s*/\s*10\b|\s+out of 10\b)?[\W_]*(?:and\W+)?(?:Response\s+)?"
    + _SCORE.format("B")
)
_MOST = 10.0


@dataclass(frozen=True)
class Opinion:
    """Hold the scores one judge gave in one order, for A and B as shown; None when unreadable."""

    scores: tuple[float, float] | None
    text: str


@dataclass(frozen=True)
class Vote:
    """Hold one judge's preference: the mean over both orders of chosen minus rejected, in points.

    None when an answer could not be read; `is_consistent` when both orders prefer the same side.
    """

    preference: float | None
    is_consistent: bool


def ask_for_scores(prompt: str, first: str, second: str, others: Sequence[str] = ()) -> str:
    """Return the question to a judge; `others` are opinions of the jury's round before."""
    heard = "".join(f"\n[Another judge]\n{text}\n" for text in others)
    weigh = "Weigh what the other judges said, and change your mind where they are right.\n"
    return (
        "Score two responses to a request, each from 0 to 10, for how well it does what is asked: "
        "correct, complete, clear. Order and length earn nothing.\n"
        f"\n[Request]\n{prompt}\n\n[Response A]\n{first}\n\n[Response B]\n{second}\n{heard}\n"
        f"{weigh if others else ''}"
        "Give one sentence of reasons, then a last line of this form:\nA: 7 B: 4\n"
    )


def read_opinion(answer: str) -> Opinion:
    """Return the last pair of scores in an answer; out of range or missing is unreadable."""
    found = _SCORES.findall(answer)
    if not found:
        return Opinion(None, answer)
    first, second = (float(score) for score in found[-1])
    is_valid = first <= _MOST and second <= _MOST
    return Opinion((first, second) if is_valid else None, answer)


def combine_orders(forward: Opinion, backward: Opinion) -> Vote:
    """Return the vote of two opinions: chosen as A, then chosen as B."""
    if forward.scores is None or backward.scores is None:
        return Vote(None, is_consistent=False)
    one = forward.scores[0] - forward.scores[1]
    other = backward.scores[1] - backward.scores[0]
    return Vote((one + other) / 2, is_consistent=_sign(one) == _sign(other))


def count_votes(votes: Sequence[Vote]) -> int:
    """Return the jury's side: 1 for chosen, -1 for rejected, 0 without a majority."""
    return _sign(sum(_sign(vote.preference) for vote in votes if vote.preference is not None))


def cohen_kappa(left: Sequence[int], right: Sequence[int]) -> float:
    """Return the agreement of two raters beyond chance (Cohen 1960): (p_o - p_e) / (1 - p_e).

    1 where both always give the same single rating. Raises ValueError for no ratings, or for
    different numbers of them.
    """
    if not left or len(left) != len(right):
        raise ValueError(f"{len(left)} ratings and {len(right)} (needs as many, and at least one)")
    n = len(left)
    observed = sum(a == b for a, b in zip(left, right, strict=True)) / n
    expected = sum(left.count(k) * right.count(k) for k in set(left) | set(right)) / n**2
    return 1.0 if expected == 1.0 else (observed - expected) / (1 - expected)


def _sign(value: float | None) -> int:
    return 0 if value is None else (value > 0) - (value < 0)
