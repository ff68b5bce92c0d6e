"""Equations and inequalities: what they state, as an interval, and as one side against 0."""

from collections.abc import Sequence

from trillium_math.grading.answers import Answer, Formula, Relation
from trillium_math.grading.answers import Sequence as Interval
from trillium_math.grading.expression import Node, symbols_of

_FLIPPED = {">": "<", ">=": "<="}


def is_name(node: Node) -> bool:
    """Say whether a side is a lone name: x, or f(x)."""
    if node[0] == "sym":
        return True
    return (
        node[0] == "mul"
        and isinstance(node[1], tuple)
        and node[1][0] == "sym"
        and str(node[1][1])[0] in "fghPQ"
        and isinstance(node[2], tuple)
        and node[2][0] == "sym"
    )


def names_of(relation: Relation) -> frozenset[str]:
    """Return the symbols of all sides."""
    return frozenset().union(*(symbols_of(side) for side in relation.sides))


def are_assignments(items: Sequence[Answer]) -> bool:
    """Say whether items assign different names, as in x = 1, y = 2."""
    names = [item.sides[0] for item in items if isinstance(item, Relation)]
    return len(names) == len(items) == len(set(names)) and all(name[0] == "sym" for name in names)


def are_numbered(items: Sequence[Answer]) -> bool:
    """Say whether assignments number the values of one unknown, as in x_1 = 1, x_2 = 2."""
    return len({_letter(item) for item in items}) == 1


def by_name(items: Sequence[Answer]) -> Sequence[Answer]:
    """Return assignments in the order of their names, and other items as they are."""
    if not are_assignments(items):
        return items
    return sorted(items, key=lambda item: (_letter(item), len(_name(item)), _name(item)))


def _name(item: Answer) -> str:
    assert isinstance(item, Relation)
    return str(item.sides[0][1])


def _letter(item: Answer) -> str:
    return _name(item).partition("_")[0]


def rising(relation: Relation) -> Relation:
    """Return x > 5 as 5 < x, and relations of other kinds as they are."""
    if any(operator not in {">", ">="} for operator in relation.operators):
        return relation
    operators = tuple(_FLIPPED[operator] for operator in reversed(relation.operators))
    return Relation(relation.sides[::-1], operators, relation.text)


def as_interval(relation: Relation) -> Interval | None:
    """Return x > 5 as (5, oo) and 1 <= x < 2 as [1, 2); None for other relations.

    Between two names the first is what the relation is about: x > a is (a, oo).
    """
    first, relation = relation.sides[0], rising(relation)
    sides, operators = relation.sides, relation.operators
    if not set(operators) <= {"<", "<="}:
        return None
    low: Node = ("neg", ("const", "oo"))
    high: Node = ("const", "oo")
    if len(sides) == 3 and sides[1][0] == "sym":
        low, high, name = sides[0], sides[2], sides[1]
        kind = _side("[(", operators[0]) + _side("])", operators[1])
    elif len(sides) == 2 and sides[0][0] == "sym" and (sides[0] == first or sides[1][0] != "sym"):
        high, name, kind = sides[1], sides[0], "(" + _side("])", operators[0])
    elif len(sides) == 2 and sides[1][0] == "sym":
        low, name, kind = sides[0], sides[1], _side("[(", operators[0]) + ")"
    else:
        return None
    if (symbols_of(low) | symbols_of(high)) & symbols_of(name):
        return None
    return Interval(kind, (Formula(low, ""), Formula(high, "")))


def _side(brackets: str, operator: str) -> str:
    return brackets[0] if operator.endswith("=") else brackets[1]


def as_difference(relation: Relation) -> tuple[Node, str]:
    """Return d and the operator of d < 0, d <= 0, d = 0 or d != 0 for a rising relation."""
    left, right = relation.sides
    return ("add", left, ("neg", right)), relation.operators[0]
