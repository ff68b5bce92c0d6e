"""The row formats of task files: our own, HumanEval and its relatives, MBPP, and their plus forms.

The format of a row is told by its fields. Every problem is a DataError that names the field.
"""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from trillium.errors import DataError

from trillium_code.plus_tests import SKIPPED, is_plus_row, without_numpy
from trillium_code.syntax import describe, parse, unparse
from trillium_code.tasks import BANDS, CodeTask, signature_of

Row = Mapping[str, object]
Choice = TypeVar("Choice", bound=str | None)
_MOST_SHOWN = 200


@dataclass(frozen=True)
class Skipped:
    """Name a row that is known to be unusable, and why."""

    id: str
    reason: str


def parse_row(row: Row) -> CodeTask | Skipped:
    """Turn one row of any known format into a task, unless it is known to be unusable.

    Raises DataError that names the field.
    """
    for field, read in _FORMATS.items():
        if field in row:
            try:
                task = read(row)
            except SyntaxError as error:
                raise DataError(
                    f"the code of the row cannot be written out ({error.msg}); shorten it"
                ) from None
            reason = SKIPPED.get((task.id, is_plus_row(row)))
            return task if reason is None else Skipped(task.id, reason)
    raise DataError(
        f"unknown kind of task with the fields {', '.join(sorted(row)) or 'none'} (needs signature "
        "and statement, or prompt and entry_point, or text, code and test_list); add the fields"
    )


def _own(row: Row) -> CodeTask:
    entry_point, signature = _text(row, "entry_point"), _text(row, "signature")
    statement = _text(row, "statement")
    example = _text(row, "example") if "example" in row else None
    return CodeTask(
        id=_text(row, "id"),
        entry_point=entry_point,
        header=_checked(document(signature, statement, example), entry_point),
        statement=statement,
        tests=_asserts(row, "tests", entry_point),
        band=_choice(row, "band", BANDS, "unrated"),
        split=_choice(row, "split", ("train", "held_out"), None),
        idea=_text(row, "idea") if "idea" in row else "",
        solution=_text(row, "solution") if "solution" in row else None,
        wrong=_texts(row, "wrong") if "wrong" in row else (),
    )


def _prompted(row: Row) -> CodeTask:
    """Read HumanEval and its relatives: code up to the docstring, and a `check(candidate)`."""
    entry_point, prompt = _text(row, "entry_point"), _text(row, "prompt")
    tests: tuple[str, ...] = ()
    if "test" in row:
        tests = (f"{_whole_test(row, defines='check')}\n\ncheck({entry_point})\n",)
    elif "tests" in row:
        tests = _asserts(row, "tests", entry_point)
    solution = None
    if "canonical_solution" in row:
        solution = prompt + _text(row, "canonical_solution")
    id = row.get("task_id", row.get("id", entry_point))
    return CodeTask(
        id=str(id),
        entry_point=entry_point,
        header=_checked(prompt, entry_point),
        statement=docstring_of(prompt, entry_point),
        tests=tests,
        band=_choice(row, "band", BANDS, "unrated"),
        split=_choice(row, "split", ("train", "held_out"), None),
        solution=solution,
    )


def _mbpp(row: Row) -> CodeTask:
    """Read MBPP: a sentence, a program, and asserts; the signature is that of the program.

    The first assert is shown as an example, because the sentence alone leaves argument order and
    return type open; it stays among the hidden tests, as in published results.
    """
    statement = _text(row, "text" if "text" in row else "prompt")
    code = _text(row, "code").replace("\r\n", "\n")
    tests = tuple(test.strip() for test in _texts(row, "test_list"))
    function = _function_under_test(code, tests)
    signature = f"def {function.name}({unparse(function.args)}):"
    example = tests[0] if _condition(tests[0]) is not None else None
    setup = str(row.get("test_setup_code") or "\n".join(_imports(row))).strip()
    _parsed(setup, "the code before the tests")
    if "test" in row:
        tests = (f"{_whole_test(row)}\n",)
    elif setup:
        tests = tuple(f"{setup}\n{test}" for test in tests)
    return CodeTask(
        id=f"mbpp/{row['task_id']}" if "task_id" in row else f"mbpp/{function.name}",
        entry_point=function.name,
        header=_checked(document(signature, statement.strip(), example), function.name),
        statement=statement.strip(),
        tests=tests,
        solution=code,
    )


_FORMATS: dict[str, Callable[[Row], CodeTask]] = {
    "signature": _own,
    "test_list": _mbpp,
    "prompt": _prompted,
}


def _whole_test(row: Row, *, defines: str | None = None) -> str:
    """Return the text under "test", which must parse, with what it needs of numpy put in."""
    test = _text(row, "test").strip()
    body = _parsed(test, 'field "test"').body
    functions = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    if defines is not None and defines not in functions:
        raise DataError(
            f'field "test" defines no function {defines} (needs def {defines}(candidate):, which '
            'tests it); add it, or give asserts under "tests"'
        )
    return without_numpy(test)


def _parsed(text: str, name: str) -> ast.Module:
    try:
        return parse(text)
    except SyntaxError as error:
        raise DataError(f"{name} does not parse ({describe(error)}); fix or drop it") from None


def _imports(row: Row) -> list[str]:
    found = row.get("test_imports")
    return [str(line) for line in found] if isinstance(found, list) else []


def document(signature: str, statement: str, example: str | None) -> str:
    """Return the signature with a docstring of the statement and, when given, one example."""
    quoted = statement.replace("\\", "\\\\").replace('"""', "'''")
    if quoted.endswith('"'):
        quoted += " "
    if example is None:
        return f'{signature}\n    """{quoted}"""\n'
    return f'{signature}\n    """{quoted}\n\n    {_doctest(example)}\n    """\n'


def _doctest(example: str) -> str:
    """Show `f(x) == y` as a call with its value, and any other condition as one that is True."""
    condition = _condition(example)
    if condition is None:
        raise DataError(f"example {example!r} is no single condition (needs f(x) == y); fix it")
    shown, value = unparse(condition), "True"
    if isinstance(condition, ast.Compare) and isinstance(condition.left, ast.Call):
        is_plain = isinstance(condition.left.func, ast.Name) and condition.left.func.id != "abs"
        if is_plain and len(condition.ops) == 1 and isinstance(condition.ops[0], ast.Eq):
            shown, value = unparse(condition.left), unparse(condition.comparators[0])
    return f">>> {shown}\n    {value}".replace("\\", "\\\\")


def _condition(test: str) -> ast.expr | None:
    """Return what a single assert, or a bare expression, claims; None for anything else."""
    try:
        body = parse(test.strip()).body
    except SyntaxError:
        return None
    only = body[0] if len(body) == 1 else None
    if isinstance(only, ast.Assert):
        return only.test
    return only.value if isinstance(only, ast.Expr) else None


def docstring_of(prompt: str, entry_point: str) -> str:
    """Return the docstring of the function that `prompt` begins, or an empty text."""
    for node in parse(prompt.rstrip() + "\n    pass\n").body:
        if isinstance(node, ast.FunctionDef) and node.name == entry_point:
            return (ast.get_docstring(node) or "").strip()
    return ""


def _text(row: Row, field: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        problem = "is missing" if field not in row else f"is {value!r}"
        raise DataError(f'field "{field}" {problem} (needs a text); add it or drop the row')
    return value


def _texts(row: Row, field: str) -> tuple[str, ...]:
    value = row.get(field)
    if not isinstance(value, list) or not value or not all(isinstance(x, str) for x in value):
        raise DataError(f'field "{field}" is no list of texts (needs one or more); add it')
    return tuple(value)


def _choice(row: Row, field: str, known: tuple[Choice, ...], default: Choice) -> Choice:
    value = row.get(field, default)
    for choice in (*known, default):
        if value == choice:
            return choice
    raise DataError(f'field "{field}" is {value!r} (expected {", ".join(map(str, known))}); fix it')


def _asserts(row: Row, field: str, entry_point: str) -> tuple[str, ...]:
    tests = _texts(row, field)
    for test in tests:
        _parsed(test, f"test {_shown(test)}")
        if entry_point not in test:
            raise DataError(f"test {_shown(test)} does not call {entry_point}; fix or drop it")
    return tests


def _function_under_test(code: str, tests: tuple[str, ...]) -> ast.FunctionDef:
    body = _parsed(code, 'field "code"').body
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    first, *_ = [_parsed(test, f"test {_shown(test)}") for test in tests]
    called = {
        node.func.id
        for node in ast.walk(first)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    for function in functions:
        if function.name in called:
            return function
    raise DataError("no function of the code is called by its first test; fix or drop the row")


def _shown(test: str) -> str:
    return repr(test if len(test) <= _MOST_SHOWN else f"{test[:_MOST_SHOWN]}...")


def _checked(header: str, entry_point: str) -> str:
    signature_of(header, entry_point)
    return header
