"""Grade an answer or a whole response: extract, parse, compare; never raise, never hang."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from types import TracebackType
from typing import Literal

from trillium_math.grading.answers import parse_answer
from trillium_math.grading.comparing import is_same
from trillium_math.grading.extraction import SOURCES, Source, extract_answer, find_box
from trillium_math.grading.kinds import Parsed
from trillium_math.grading.symbolic import SympyAlgebra

Kind = Literal["answer", "response"]

_PLAIN = re.compile(r"\s*[-+]?(?:\d{1,3}(?:,\d{3})+|\d{1,100})(?:\.\d{1,100}|/0*[1-9]\d{0,50})?\s*")


@dataclass(frozen=True)
class Grade:
    """Hold the verdict and the answer it is about; None when a response has none."""

    correct: bool
    extracted: str | None


class Grader:
    """Grade predictions; holds the algebra process, so use it as a context manager."""

    def __init__(self, *, sources: Sequence[Source] = SOURCES, timeout_s: float = 2.0) -> None:
        """Choose where in a response an answer may stand; rewards should take boxes only."""
        self._sources = tuple(sources)
        self._algebra = SympyAlgebra(timeout_s=timeout_s, budget_s=3 * timeout_s)

    @property
    def n_timeouts(self) -> int:
        """Count the comparisons that algebra did not finish; they count as wrong."""
        return self._algebra.n_killed

    def grade(self, gold: str, prediction: str, kind: Kind = "answer") -> Grade:
        """Compare a prediction with the reference answer."""
        gold = _unbox(gold)
        if kind == "response":
            extracted = extract_answer(prediction, self._sources)
        else:
            extracted = _unbox(prediction).strip()
        if not extracted:
            return Grade(correct=False, extracted=None)
        return Grade(correct=self.is_same(gold, extracted), extracted=extracted)

    def is_same(self, gold: str, answer: str) -> bool:
        """Say whether two answers are the same, see comparing.py."""
        if _PLAIN.fullmatch(gold) and _PLAIN.fullmatch(answer):
            one, other = _plain_number(gold), _plain_number(answer)
            # A decimal may still stand for a fraction that no decimal writes.
            if one == other or one.denominator == 1 or "." not in answer:
                return one == other
        self._algebra.begin()
        return is_same(_parse(gold), _parse(answer), self._algebra)

    def close(self) -> None:
        """End the algebra process."""
        self._algebra.close()

    def __enter__(self) -> "Grader":
        """Return the grader itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the algebra process."""
        self.close()


@lru_cache(maxsize=4096)
def _parse(text: str) -> Parsed:
    return parse_answer(text)


def _unbox(text: str) -> str:
    return (find_box(text) or "") if "\\boxed" in text or "\\fbox" in text else text


def _plain_number(text: str) -> Fraction:
    return Fraction(text.replace(",", "").strip())
