"""Equations and inequalities: what they state, as an interval, and as one side against 0."""

from collections.abc import Sequence

from trillium_math.grading.exact import TooLarge, value_of
from trillium_math.grading.expression import Node, symbols_of
from trillium_math.grading.kinds import Answer, Formula, Relation
from trillium_math.grading.kinds import Sequence as Interval

_FLIPPED = {">": "<", ">=": "<="}
_FUNCTIONS = (("sym", "f"), ("sym", "g"), ("sym", "h"))


def is_name(node: Node) -> bool:
    """Say whether a side is a lone name: x, f(x), the inverse of f, or the segment AB."""
    if node[0] == "sym":
        return True
    if node[0] != "mul":
        return False
    left, right = node[1:]
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    if left[0] == "pow" and left[2] == ("neg", ("num", "1", 0)):
        return left[1] in _FUNCTIONS and right[0] == "sym"
    if left[0] != "sym" or right[0] != "sym":
        return False
    return str(left[1])[0] in "fghPQ" or (str(left[1]) + str(right[1])).isupper()


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


def as_chain(items: Sequence[Answer]) -> Relation | None:
    """Return x > -2 and x < 3 as -2 < x < 3; None for all but a lower and an upper bound of x."""
    bounds = [rising(item) for item in items if isinstance(item, Relation)]
    if len(bounds) != 2 or len(items) != 2:
        return None
    for low, high in (bounds, bounds[::-1]):
        name = low.sides[-1]
        are_simple = len(low.sides) == len(high.sides) == 2 and name[0] == "sym"
        operators = low.operators + high.operators
        if are_simple and name == high.sides[0] and {*operators} <= {"<", "<="}:
            return Relation((low.sides[0], name, high.sides[1]), operators, "")
    return None


def has_room(chain: Relation) -> bool:
    """Say whether a number fits between the ends of a chain, which -2 < x < 3 shows."""
    try:
        low, high = value_of(chain.sides[0]), value_of(chain.sides[-1])
    except TooLarge:
        return False
    return low is not None and high is not None and low < high


def as_links(chain: Relation) -> list[Relation]:
    """Return a < b < c as a < b and b < c."""
    pairs = zip(chain.sides, chain.sides[1:], chain.operators, strict=False)
    return [Relation((left, right), (operator,), "") for left, right, operator in pairs]


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
