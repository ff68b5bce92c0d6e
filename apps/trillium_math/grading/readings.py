"""One kind of answer read as another: a ratio as a fraction, a vector as a matrix, {5} as 5."""

from trillium_math.grading.expression import Node, symbols_of
from trillium_math.grading.kinds import Answer, Formula, Matrix, Sequence

_BRACKETS = {"()", "[]"}


def simplify(answer: Answer) -> Answer:
    """Turn a list or set of one answer into the answer; of a letter, {x} may be a function."""
    if isinstance(answer, Sequence) and answer.kind in {"", "{}"} and len(answer.items) == 1:
        (item,) = answer.items
        is_open = isinstance(item, Formula) and symbols_of(item.node)
        return answer if answer.kind and is_open else item
    return answer


def as_fraction(answer: Answer) -> Node | None:
    """Return a formula, or a ratio a : b as the fraction that it is."""
    if isinstance(answer, Formula):
        return answer.node
    if isinstance(answer, Sequence) and answer.kind in {"::", "h:m"}:
        parts = [item for item in answer.items if isinstance(item, Formula)]
        if len(parts) == len(answer.items) == 2 and not parts[1].text.startswith("0"):
            return ("div", parts[0].node, parts[1].node)
    return None


def is_clock(answer: Answer) -> bool:
    """Say whether an answer may be a time of day, such as 12:30."""
    return isinstance(answer, Sequence) and answer.kind == "h:m"


def as_matrix(answer: Sequence, model: Matrix) -> Matrix:
    """Read rows in brackets, or a vector as a row or a column like `model`, as a matrix."""
    found = [one for one in answer.items if isinstance(one, Sequence)]
    if answer.kind not in _BRACKETS or not {row.kind for row in found} <= _BRACKETS:
        return Matrix((), is_determinant=False)
    rows = tuple(row.items for row in found)
    if not rows:
        is_column = len(model.rows) > 1
        rows = tuple((item,) for item in answer.items) if is_column else (answer.items,)
    elif len(rows) != len(answer.items):
        rows = ()
    return Matrix(rows, is_determinant=False)
