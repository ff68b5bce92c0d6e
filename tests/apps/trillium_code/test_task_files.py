import ast
import gzip
import json
import os
from pathlib import Path

import numpy
import pytest
from trillium.errors import DataError
from trillium_code.plus_tests import SKIPPED, without_numpy
from trillium_code.task_files import read_task_file, read_tasks
from trillium_code.task_rows import Skipped, document, parse_row

OWN = {
    "id": "own/inc",
    "entry_point": "inc",
    "signature": "def inc(n: int) -> int:",
    "statement": "Return n plus one.",
    "tests": ["assert inc(1) == 2"],
    "band": "easy",
    "split": "held_out",
}
HUMANEVAL = {
    "task_id": "HumanEval/900",
    "prompt": 'from typing import List\n\n\ndef inc(n: int) -> int:\n    """ Add one.\n    """\n',
    "entry_point": "inc",
    "canonical_solution": "    return n + 1\n",
    "test": "def check(candidate):\n    assert candidate(1) == 2\n",
}
MBPP = {
    "task_id": 7,
    "text": "Write a function to add one.",
    "code": "def helper(x):\r\n  return x\r\ndef inc(n, step = 1):\r\n  return n + step",
    "test_list": ["assert inc(1)==2", "assert inc(2)==3"],
    "test_setup_code": "import math",
}


def write(path, *rows):
    path.write_text(
        "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    )
    return path


def run(program, test):
    names = {}
    exec(program, names)
    exec(test, names)


def test_an_own_task_begins_with_signature_and_statement():
    task = parse_row(OWN)
    assert task.header == 'def inc(n: int) -> int:\n    """Return n plus one."""\n'
    assert (task.id, task.band, task.split) == ("own/inc", "easy", "held_out")
    assert task.signature == "def inc(n: int) -> int:"


def test_a_humaneval_task_keeps_its_prompt_and_checks_the_function():
    task = parse_row(HUMANEVAL)
    assert task.header == HUMANEVAL["prompt"]
    assert (task.entry_point, task.statement, task.split) == ("inc", "Add one.", None)
    (test,) = task.tests
    run(task.solution, test)
    with pytest.raises(AssertionError):
        run("def inc(n):\n    return n\n", test)


def test_an_mbpp_task_takes_the_signature_of_the_tested_function_and_shows_one_example():
    task = parse_row(MBPP)
    assert task.id == "mbpp/7"
    assert task.signature == "def inc(n, step=1):"
    assert ">>> inc(1)\n    2\n" in task.header
    assert len(task.tests) == 2
    for test in task.tests:
        run(task.solution, test)
    assert ast.parse(task.tests[0]).body[0].names[0].name == "math"


@pytest.mark.parametrize("statement", ['Quote "x"', 'Say """hi"""', "A \\n in text", "two\nlines"])
def test_a_documented_signature_always_parses(statement):
    tree = ast.parse(document("def f():", statement, "f() == '\\n'") + "    pass\n")
    assert ast.get_docstring(tree.body[0]).replace("'''", '"""').startswith(statement)


def test_an_example_that_is_no_equation_is_shown_as_true():
    assert ">>> abs(f(1) - 2.5) < 0.01\n    True" in document(
        "def f(x):", "?", "abs(f(1)-2.5) < .01"
    )


def test_compressed_files_are_read(tmp_path):
    path = tmp_path / "tasks.jsonl.gz"
    with gzip.open(path, "wt") as stream:
        stream.write(json.dumps(HUMANEVAL) + "\n")
    assert [task.id for task in read_tasks(str(path))] == ["HumanEval/900"]


def test_all_bad_rows_of_a_file_are_named_with_their_line(tmp_path):
    path = write(
        tmp_path / "tasks.jsonl",
        OWN,
        {**OWN, "id": "b", "entry_point": "other"},
        "\n",
        {**OWN, "id": "c", "tests": ["assert inc(1 = 2"]},
        {"prompt": "def f():\n"},
        "{broken\n",
        OWN,
        {**OWN, "id": "d", "tests": ["assert other(1) == 2"]},
        {**OWN, "id": "e", "band": "trivial"},
        {"name": "?"},
    )
    with pytest.raises(DataError) as error:
        read_tasks(str(path))
    message = str(error.value)
    for line, text in {
        2: 'defines no function "other"',
        4: "does not parse",
        5: 'field "entry_point" is missing',
        6: "is not JSON",
        7: 'task id "own/inc" occurs twice',
        8: "does not call inc",
        9: "field \"band\" is 'trivial'",
        10: "unknown kind of task with the fields name",
    }.items():
        assert any(
            row.startswith(f"{path}:{line}: ") and text in row for row in message.splitlines()
        ), (line, message)


def test_rows_that_break_the_parsers_themselves_are_named_like_any_other(tmp_path):
    deep = "-" * 100_000
    path = write(
        tmp_path / "tasks.jsonl",
        {**OWN, "id": "\ud800"},
        {**OWN, "id": "a", "tests": [f"assert inc({deep}1) == 2"]},
        {**OWN, "id": "b", "signature": f"def inc(n={deep}1):"},
        "[" * 100_000 + "\n",
        {**OWN, "id": "c", "example": f"inc(1) == 0x{'f' * 4000}"},
        {**HUMANEVAL, "test": f"def check(candidate):\n    {deep}1\n"},
    )
    with pytest.raises(DataError) as error:
        read_tasks(str(path))
    texts = (
        "half a surrogate pair",
        "too deeply",
        "too deeply",
        "is not JSON",
        "written out",
        "too d",
    )
    rows = str(error.value).splitlines()
    assert len(rows) == len(texts)
    for line, (row, text) in enumerate(zip(rows, texts, strict=True), 1):
        assert row.startswith(f"{path}:{line}: "), row
        assert text in row


def test_an_empty_or_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no task"):
        read_tasks(str(write(tmp_path / "empty.jsonl")))
    with pytest.raises(DataError, match=r"nowhere\.jsonl: cannot be read \(No such file"):
        read_tasks(str(tmp_path / "nowhere.jsonl"))
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"binary\.jsonl: cannot be read \(it is no UTF-8 text"):
        read_tasks(str(tmp_path / "binary.jsonl"))
    packed = bytearray(gzip.compress(json.dumps(OWN).encode(), mtime=0))
    packed[10:30] = b"\xff" * 20
    (tmp_path / "damaged.jsonl.gz").write_bytes(packed)
    with pytest.raises(DataError, match=r"damaged\.jsonl\.gz: cannot be read"):
        read_tasks(str(tmp_path / "damaged.jsonl.gz"))


PLUS = {
    "task_id": "HumanEval/901",
    "prompt": 'def half(x):\n    """Halve."""\n',
    "canonical_solution": "    return x / 2\n",
    "entry_point": "half",
    "test": (
        "\n\nimport numpy as np\n\n"
        "def check(candidate):\n"
        "    inputs = [[1.0], [3.0]]\n"
        "    results = [0.5, 1.5000005]\n"
        "    for i, (inp, exp) in enumerate(zip(inputs, results)):\n"
        "        assert np.allclose(candidate(*inp), exp, rtol=1e-07, atol=1e-6)\n"
    ),
}


def test_a_plus_test_runs_without_numpy_and_compares_as_numpy_does():
    (test,) = parse_row(PLUS).tests
    assert "import numpy" not in test
    run("def half(x):\n    return x / 2\n", test)
    with pytest.raises(AssertionError):
        run("def half(x):\n    return x / 2 + 1e-5\n", test)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1.0, 1.0 + 9e-7),
        (1.0, 1.0 + 2e-6),
        ([1.0, 2.0], [1.0, 2.0 + 1e-7]),
        ([1.0], [2.0]),
        (float("inf"), float("inf")),
        (float("inf"), 1.0),
        (1.0, float("inf")),
        ([1.0], [float("-inf")]),
        (float("nan"), float("inf")),
        (float("nan"), float("nan")),
        ((1, 2), [1, 2]),
        ([[1.0], [2.0]], [[1.0], [2.1]]),
        ([1.0, 1.0], 1.0),
        (1.0, [1.0, 2.0]),
    ],
)
def test_the_stand_in_for_allclose_agrees_with_numpy(a, b):
    names = {}
    exec(without_numpy("import numpy as np"), names)
    expected = bool(numpy.allclose(a, b, rtol=1e-7, atol=1e-6))
    assert bool(names["np"].allclose(a, b, rtol=1e-7, atol=1e-6)) == expected


def test_separators_in_a_text_of_a_plus_test_stay_in_it():
    names = {}
    exec(
        without_numpy('import numpy as np\r\ntext = "a\u2028b"\r\nsame = np.allclose(1, 1)'), names
    )
    assert (names["text"], names["same"]) == ("a\u2028b", True)


def test_known_bad_rows_are_skipped_in_the_form_that_is_bad():
    broken = {**PLUS, "task_id": "HumanEval/139"}
    assert parse_row(broken) == Skipped("HumanEval/139", SKIPPED["HumanEval/139", True])
    assert parse_row({**HUMANEVAL, "task_id": "HumanEval/139"}).id == "HumanEval/139"
    assert "Node" in parse_row({**MBPP, "task_id": 367}).reason


def test_a_test_text_that_does_not_parse_is_told(tmp_path):
    with pytest.raises(DataError, match=r'field "test" does not parse'):
        parse_row({**HUMANEVAL, "test": "def check(candidate:\n"})


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({**HUMANEVAL, "test": "def chk(candidate):\n    pass\n"}, "no function check"),
        (
            {**MBPP, "test_list": ["assert inc(1)==2", "assert inc(2 == 3"]},
            "'assert inc.2 == 3' does",
        ),
        ({**MBPP, "test_setup_code": "import"}, "the code before the tests does not parse"),
        ({**MBPP, "code": "def inc(x) return x"}, 'field "code" does not parse'),
    ],
)
def test_every_test_of_a_published_form_must_be_able_to_run(row, problem):
    with pytest.raises(DataError, match=problem):
        parse_row(row)


DATA = Path(os.environ.get("TRILLIUM_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.mark.parametrize(
    ("name", "n_tasks"),
    [
        ("mbpp/mbpp.jsonl", 972),
        ("evalplus/HumanEvalPlus-OriginFmt.jsonl.gz", 162),
        ("evalplus/MbppPlus-OriginFmt.jsonl.gz", 376),
    ],
)
def test_the_published_files_are_read_less_what_is_known_to_be_unusable(name, n_tasks):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not on this machine (set TRILLIUM_DATA)")
    found = read_task_file(str(path))
    assert (len(found.tasks), len(found.skipped), found.problems) == (n_tasks, 2, ())
    assert not any("import numpy" in test for task in found.tasks for test in task.tests)
