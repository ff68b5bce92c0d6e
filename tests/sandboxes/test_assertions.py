"""Which tests a judge may run for one candidate after another in one process."""

import pytest
from trillium_sandbox.assertions import only_asserts


def read(text):
    return compile(text, "test.py", "exec", dont_inherit=True)


@pytest.mark.parametrize(
    "text",
    [
        "assert f(2) == [1, 2]",
        "assert f([1, 2], x=3)[0] == {'a': (1, -2.5), 'b': {1, 2}}, f'got {f(1)}'",
        "assert sorted(f([3, 1])) == [1, 3] and not f([]) or len(f(2)) in (1, 2)",
        "assert abs(f(1) - 2.0) < 1e-6\nassert f(1) is None\nassert 1 < f(2) < 3",
        "assert candidate(*[1, 2], **{'a': 1})[1:2] == '2'",
    ],
)
def test_assertions_on_what_is_called_leave_nothing_behind(text):
    assert only_asserts(read(text), "f")


@pytest.mark.parametrize(
    "text",
    [
        "import math\nassert f(2) == math.pi",
        "import copy\ncopy.copy = len",
        "__builtins__['len'] = max",
        "f.__globals__.clear()",
        "assert str.upper(f(1)) == 'A'",
        "f(0).update = f",
        "assert eval('f(2)') == 4",
        "assert print(f(2)) is None",
        "assert f(type)",
        "x = f(1)\nassert x == 1",
        "del f",
        "assert (y := f(1)) == 1",
        "class Row:\n    pass",
        "def check(candidate):\n    assert candidate(1) == 1\ncheck(f)",
        "assert all(n > 0 for n in f(3))",
        "assert (lambda: f(1))() == 1",
        "for n in f(3):\n    assert n",
        "while f(1):\n    pass",
        "try:\n    f(0)\nexcept Exception:\n    pass",
        "with f(1):\n    pass",
        "match f(1):\n    case int(real=real):\n        pass",
        "assert f(1) is f(1)",
    ],
)
def test_whatever_else_a_test_does_is_not_taken_for_an_assertion(text):
    assert not only_asserts(read(text), "f")


def test_an_entry_point_of_a_special_name_is_no_door():
    assert only_asserts(read("assert exec('a = 1') == 2"), "exec")
    assert not only_asserts(read("assert exec('a = 1') == 2"), "f")
    assert not only_asserts(read("assert int.__class__(f)"), "__class__")
