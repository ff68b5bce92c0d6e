"""Read task files: our own set, HumanEval, MBPP, and any JSON lines with prompt and entry point.

The format of a row is told by its fields. Every bad row of a file is reported at
once, with its line.
"""

import ast
import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TypeVar

from trillium.errors import DataError

from trillium_code.tasks import BANDS, CodeTask, signature_of

Row = Mapping[str, object]
Choice = TypeVar("Choice", bound=str | None)
OWN = "own"
HUMANEVAL = "humaneval"
_MOST_PROBLEMS_SHOWN = 10


def read_tasks(source: str) -> list[CodeTask]:
    """Read all tasks of `own`, the asset `humaneval`, or the file at the path `source`.

    Raises DataError that lists every bad row, or says that there is no row.
    """
    path = _locate(source)
    tasks: dict[str, CodeTask] = {}
    problems: list[str] = []
    n_rows = 0
    for line, text in _lines(path):
        n_rows += 1
        try:
            task = parse_row(_parse_json(text))
            if task.id in tasks:
                raise DataError(f'task id "{task.id}" occurs twice (must be unique); rename one')
            tasks[task.id] = task
        except DataError as error:
            problems.append(f"{path}:{line}: {error}")
    if n_rows == 0:
        raise DataError(f"{path}: holds no task (needs one JSON object per line); give another")
    if problems:
        hidden = len(problems) - _MOST_PROBLEMS_SHOWN
        more = [f"... and {hidden} more"] if hidden > 0 else []
        raise DataError("\n".join([*problems[:_MOST_PROBLEMS_SHOWN], *more]))
    return list(tasks.values())


def parse_row(row: Row) -> CodeTask:
    """Turn one row of any known format into a task; raises DataError that names the field."""
    for field, parse in _FORMATS.items():
        if field in row:
            return parse(row)
    raise DataError(
        f"unknown kind of task with the fields {', '.join(sorted(row)) or 'none'} (needs signature "
        "and statement, or prompt and entry_point, or text, code and test_list); add the fields"
    )


def own_tasks_path() -> Path:
    """Return the file of our own tasks inside the package."""
    return Path(str(resources.files("trillium_code"))) / "own_tasks.jsonl"


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
        tests = (f"{_text(row, 'test').strip()}\n\ncheck({entry_point})\n",)
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
    statement, code = _text(row, "text"), _text(row, "code").replace("\r\n", "\n")
    tests = tuple(test.strip() for test in _texts(row, "test_list"))
    function = _function_under_test(code, tests)
    signature = f"def {function.name}({ast.unparse(function.args)}):"
    example = tests[0] if _condition(tests[0]) is not None else None
    setup = str(row.get("test_setup_code") or "").strip()
    if setup:
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
    "prompt": _prompted,
    "test_list": _mbpp,
}


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
    shown, value = ast.unparse(condition), "True"
    if isinstance(condition, ast.Compare) and isinstance(condition.left, ast.Call):
        is_plain = isinstance(condition.left.func, ast.Name) and condition.left.func.id != "abs"
        if is_plain and len(condition.ops) == 1 and isinstance(condition.ops[0], ast.Eq):
            shown, value = ast.unparse(condition.left), ast.unparse(condition.comparators[0])
    return f">>> {shown}\n    {value}".replace("\\", "\\\\")


def _condition(test: str) -> ast.expr | None:
    """Return what a single assert, or a bare expression, claims; None for anything else."""
    try:
        body = ast.parse(test.strip()).body
    except SyntaxError:
        return None
    only = body[0] if len(body) == 1 else None
    if isinstance(only, ast.Assert):
        return only.test
    return only.value if isinstance(only, ast.Expr) else None


def docstring_of(prompt: str, entry_point: str) -> str:
    """Return the docstring of the function that `prompt` begins, or an empty text."""
    for node in ast.parse(prompt.rstrip() + "\n    pass\n").body:
        if isinstance(node, ast.FunctionDef) and node.name == entry_point:
            return (ast.get_docstring(node) or "").strip()
    return ""


def _locate(source: str) -> Path:
    if source == OWN:
        return own_tasks_path()
    if source == HUMANEVAL:
        from trillium.assets import fetch_asset

        path = fetch_asset(HUMANEVAL)
        return next(iter(sorted(path.glob("*.jsonl*")))) if path.is_dir() else path
    return Path(source)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, line
    except (OSError, UnicodeDecodeError, EOFError) as error:
        what = "it is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
        raise DataError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or what}); "
            "give own, humaneval, or the path of a JSONL file"
        ) from None


def _parse_json(text: str) -> Row:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise DataError(f"is not JSON ({error}); one JSON object per line is needed") from None
    if not isinstance(row, dict):
        raise DataError(f"holds {type(row).__name__} (needs a JSON object); wrap it in braces")
    return row


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
        try:
            ast.parse(test)
        except SyntaxError as error:
            raise DataError(f"test {test!r} does not parse ({error.msg}); fix or drop it") from None
        if entry_point not in test:
            raise DataError(f"test {test!r} does not call {entry_point}; fix or drop it")
    return tests


def _function_under_test(code: str, tests: tuple[str, ...]) -> ast.FunctionDef:
    try:
        functions = [node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
        called = {
            node.func.id
            for node in ast.walk(ast.parse(tests[0]))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
    except SyntaxError as error:
        raise DataError(f"code or tests do not parse ({error.msg}); fix or drop the row") from None
    for function in functions:
        if function.name in called:
            return function
    raise DataError("no function of the code is called by its first test; fix or drop the row")


def _checked(header: str, entry_point: str) -> str:
    signature_of(header, entry_point)
    return header
