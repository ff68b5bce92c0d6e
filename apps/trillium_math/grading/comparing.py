"""Whether two answers are the same: exactly, by structure first and by algebra last.

There is no tolerance. A decimal stands for a number that no finite decimal writes only when it has
eight significant digits and every one of them is right.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

from trillium_math.grading import kinds
from trillium_math.grading.cleaning import drop_spaces, squeeze
from trillium_math.grading.exact import (
    TooLarge,
    is_terminating,
    last_place,
    value_of,
    writes,
)
from trillium_math.grading.expression import Node, symbols_of
from trillium_math.grading.kinds import Answer, Formula, Parsed, Relation, Words
from trillium_math.grading.labels import are_same_labels
from trillium_math.grading.percentages import divide_by_hundred, may_be_percent
from trillium_math.grading.readings import as_fraction, as_matrix, is_clock, simplify
from trillium_math.grading.relations import (
    are_assignments,
    are_numbered,
    as_difference,
    as_interval,
    as_links,
    by_name,
    is_name,
    names_of,
    rising,
)
from trillium_math.grading.units import are_apart


class Algebra(Protocol):
    """Decides what needs a computer algebra system; "no" includes "could not tell in time"."""

    def are_equal(self, one: Node, other: Node) -> bool:
        """Say whether two formulas have the same value wherever they have one."""
        ...

    def is_rounded(self, exact: Node, decimal: Fraction, unit: Fraction) -> bool:
        """Say whether the decimal is the constant rounded, or cut off, at its last digit `unit`."""
        ...

    def are_proportional(self, one: Node, other: Node, *, positive: bool) -> bool:
        """Say whether two formulas differ by a constant factor that is not 0 (or is positive)."""
        ...


def is_same(gold: Parsed, prediction: Parsed, algebra: Algebra) -> bool:
    """Say whether `prediction` is the answer `gold`."""
    gold, prediction = _beside(gold, prediction), _beside(prediction, gold)
    one, other = gold.cleaned, prediction.cleaned
    if are_apart(one.unit, other.unit):
        return False
    if other.is_percent and not one.is_percent and not may_be_percent(gold.answer):
        return False
    comparer = _Comparer(algebra)
    if squeeze(one.body) == squeeze(other.body) and _same_case(gold.answer, one.body, other.body):
        return bool(one.body)
    if one.is_long or other.is_long:
        return False
    if one.is_percent and not other.is_percent:
        hundredth = divide_by_hundred(gold.answer)
        return comparer.same(gold.answer, prediction.answer) or (
            hundredth is not None and comparer.same(hundredth, prediction.answer)
        )
    return comparer.same(gold.answer, prediction.answer)


def _beside(one: Parsed, other: Parsed) -> Parsed:
    """Read 10 m as metres beside a number or another length in metres, else as a product."""
    if one.measured is None:
        return one
    unit = (other.measured or other).cleaned.unit
    is_number = other.is_number and not unit and not other.cleaned.is_percent
    return one.measured if is_number or unit == one.measured.cleaned.unit else one


def _same_case(answer: Answer, one: str, other: str) -> bool:
    """Letters of formulas have a case that counts, words have not."""
    return isinstance(answer, Words) or drop_spaces(one) == drop_spaces(other)


class _Comparer:
    """Compare by kind; `gold` is always the first argument."""

    def __init__(self, algebra: Algebra) -> None:
        self._algebra = algebra

    def same(self, gold: Answer, other: Answer) -> bool:
        gold, other = simplify(gold), simplify(other)
        if isinstance(gold, Words) or isinstance(other, Words):
            return gold == other
        if isinstance(gold, kinds.InBase) or isinstance(other, kinds.InBase):
            return _same_in_base(gold, other)
        if isinstance(gold, Relation) and isinstance(other, Relation):
            return self._same_relations(gold, other)
        if isinstance(gold, Relation) or isinstance(other, Relation):
            return self._same_with_relation(gold, other)
        if isinstance(gold, Formula) and isinstance(other, Formula):
            verdict = are_same_labels(gold.text, other.text)
            return self.same_formulas(gold.node, other.node) if verdict is None else verdict
        if isinstance(gold, kinds.Sequence) and isinstance(other, kinds.Sequence):
            return self._same_sequences(gold, other)
        one, two = as_fraction(gold), as_fraction(other)
        if one is not None and two is not None:
            # A time of day is no number; as a ratio it is the fraction of its own two numbers.
            is_time = is_clock(gold) or is_clock(other)
            return one == two if is_time else self.same_formulas(one, two)
        if isinstance(gold, kinds.Union) and isinstance(other, kinds.Union):
            return self._same_sets(gold.parts, other.parts)
        if isinstance(gold, kinds.Union) and isinstance(other, kinds.Sequence):
            return _are_relations(other) and self._same_sets(gold.parts, other.items)
        if isinstance(gold, kinds.Sequence) and isinstance(other, kinds.Union):
            return _are_relations(gold) and self._same_sets(gold.items, other.parts)
        if isinstance(gold, kinds.Matrix) and isinstance(other, kinds.Matrix):
            return self._same_matrices(gold, other)
        if isinstance(gold, kinds.Matrix) and isinstance(other, kinds.Sequence):
            return self._same_matrices(gold, as_matrix(other, gold))
        if isinstance(gold, kinds.Sequence) and isinstance(other, kinds.Matrix):
            return self._same_matrices(as_matrix(gold, other), other)
        return False

    def same_formulas(self, gold: Node, other: Node) -> bool:
        if gold == other:
            return True
        try:
            values = [value_of(gold), value_of(other)]
        except TooLarge:
            return False
        one, two = values
        if one is not None and two is not None:
            return one == two or (
                not is_terminating(one) and writes(one, decimal=two, unit=last_place(other))
            )
        unit = last_place(other)
        if unit and two is not None and not symbols_of(gold):
            return self._algebra.is_rounded(gold, two, unit)
        return self._algebra.are_equal(gold, other)

    def _same_sequences(self, gold: kinds.Sequence, other: kinds.Sequence) -> bool:
        if gold.kind != "{}" and are_assignments(gold.items) != are_assignments(other.items):
            return self._same_by_name(gold, other)
        if gold.kind == "" and other.kind in {"", "{}", "()", "[]"}:
            return self._same_sets(gold.items, other.items)
        if gold.kind == "{}":
            return other.kind in {"", "{}"} and self._same_sets(gold.items, other.items)
        if other.kind == "" and gold.kind == "()":
            return self._same_ordered(gold.items, other.items)
        if gold.kind != other.kind and not (
            len(gold.items) > 2 and {gold.kind, other.kind} == {"()", "[]"}
        ):
            return False
        return self._same_ordered(gold.items, other.items)

    def _same_by_name(self, gold: kinds.Sequence, other: kinds.Sequence) -> bool:
        """Compare x = 1, y = 2 with (1, 2) or 1, 2 in order; x_1 = 1, x_2 = 2 may be a set."""
        is_named = are_assignments(gold.items)
        names, values = (gold, other) if is_named else (other, gold)
        if values.kind in {"", "{}"} and are_numbered(names.items):
            return self._same_sets(gold.items, other.items)
        fits = values.kind in {"", "()"} or (is_named and values.kind == "[]")
        return fits and self._same_ordered(by_name(gold.items), by_name(other.items))

    def _same_ordered(self, gold: Sequence[Answer], other: Sequence[Answer]) -> bool:
        return len(gold) == len(other) and all(map(self.same, gold, other))

    def _same_sets(self, gold: Sequence[Answer], other: Sequence[Answer]) -> bool:
        """Match each item of either side with one of the other; repeats do not count."""
        missing = [item for item in gold if item not in other]
        spare = [item for item in other if item not in gold]
        return all(any(self.same(item, each) for each in other) for item in missing) and all(
            any(self.same(each, item) for each in gold) for item in spare
        )

    def _same_matrices(self, gold: kinds.Matrix, other: kinds.Matrix) -> bool:
        return (
            gold.is_determinant == other.is_determinant
            and len(gold.rows) == len(other.rows)
            and all(map(self._same_ordered, gold.rows, other.rows))
        )

    def _same_with_relation(self, gold: Answer, other: Answer) -> bool:
        """Compare x = 5 with 5, y = 2x with 2x, 2 + 3 = 5 with 5, and x > 5 with (5, oo)."""
        relation, answer = (gold, other) if isinstance(gold, Relation) else (other, gold)
        assert isinstance(relation, Relation)
        if isinstance(answer, Formula):
            side = self._stated(relation)
            if side is None:
                return False
            pair = (side, answer.node) if relation is gold else (answer.node, side)
            return self.same_formulas(*pair)
        interval = as_interval(relation)
        if interval is None or isinstance(answer, kinds.Matrix):
            return False
        return self.same(interval, answer) if relation is gold else self.same(answer, interval)

    def _stated(self, relation: Relation) -> Node | None:
        """Return what an equation states: the side beside a lone name, or the end of a sum."""
        if set(relation.operators) != {"="}:
            return None
        first, *rest = relation.sides
        if is_name(first):
            return rest[-1] if self._all_equal(rest) else None
        if len(relation.sides) == 2 and first[0] in {"num", "neg"} and is_name(rest[0]):
            return first
        if any(symbols_of(side) for side in relation.sides):
            return None
        return rest[-1] if self._all_equal(relation.sides) else None

    def _all_equal(self, sides: Sequence[Node]) -> bool:
        return all(self.same_formulas(sides[-1], side) for side in sides[:-1])

    def _same_relations(self, gold: Relation, other: Relation) -> bool:
        gold, other = rising(gold), rising(other)
        if (gold.sides, gold.operators) == (other.sides, other.operators):
            return True
        one, two = as_interval(gold), as_interval(other)
        if one is not None and two is not None and len(names_of(gold)) == 1:
            return names_of(gold) == names_of(other) and self.same(one, two)
        if len(gold.sides) != 2 or len(other.sides) != 2:
            return gold.operators == other.operators and (
                all(map(self.same_formulas, gold.sides, other.sides))
                or self._same_links(gold, other)
            )
        return self._same_equations(gold, other)

    def _same_links(self, gold: Relation, other: Relation) -> bool:
        """Compare 1 < 2x < 3 with 1/2 < x < 3/2, one inequality after the other."""
        is_rising = 2 < len(gold.sides) == len(other.sides) and {*gold.operators} <= {"<", "<="}
        return is_rising and all(map(self._same_relations, as_links(gold), as_links(other)))

    def _same_equations(self, gold: Relation, other: Relation) -> bool:
        left, operator = as_difference(gold)
        right, other_operator = as_difference(other)
        if operator != other_operator:
            return False
        try:
            value_of(left), value_of(right)
        except TooLarge:
            return False
        is_ordered = operator not in {"=", "!="}
        return self._algebra.are_proportional(left, right, positive=is_ordered)


def _are_relations(answer: kinds.Sequence) -> bool:
    """Say whether a bare list states inequalities, as in x < 1 or x > 2."""
    return answer.kind == "" and all(isinstance(item, Relation) for item in answer.items)


def _same_in_base(gold: Answer, other: Answer) -> bool:
    """Compare digits; where only one side states a base, the problem stated it too."""
    pairs = [_digits(gold), _digits(other)]
    (one, base), (two, other_base) = pairs
    return one == two != "" and (base == other_base or not base or not other_base)


def _digits(answer: Answer) -> tuple[str, str]:
    if isinstance(answer, kinds.InBase):
        return answer.digits, answer.base
    return (answer.text.lower(), "") if isinstance(answer, Formula) else ("", "")
