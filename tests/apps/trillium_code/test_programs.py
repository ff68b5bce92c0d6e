import pytest
from hypothesis import given
from hypothesis import strategies as st
from trillium_code.programs import (
    calls,
    extract_program,
    group_equal,
    normalise,
    parse_asserts,
    stub_program,
)

HEADER = 'def inc(n: int) -> int:\n    """Return n plus one."""\n'


def value(program, argument=1):
    names = {}
    exec(program, names)
    return names["inc"](argument)


@pytest.mark.parametrize(
    "completion",
    [
        "\n    return n + 1\n```",
        "\n    return n + 1\n```\n\nThis function adds one.",
        "\n    return n + 1\nprint(inc(5))\nassert inc(1) == 7",
        "\n    return n + 1\n\n\ndef inc_twice(n):\n    return inc(",
        "    return n + 1",
        "\n    # one more\n    return helper(n)\n\ndef helper(n):\n    return n + 1\n",
        "\n    return n + 1\nThis adds one.",
        "\n    return n + 1\n\nn = int(input())\nresult = inc(n)",
        "\n    return n + STEP\n\nSTEP: int = 1\nlimit: int = int(input())",
        "\n    return NEXT[n]\n\nNEXT = []\nfor n in range(9):\n    NEXT.append(n + 1)",
    ],
)
def test_a_program_ends_where_the_function_ends(completion):
    assert value(extract_program(HEADER, completion)) == 2


def test_imports_before_the_function_stay():
    header = "import math\n\n" + HEADER
    assert value(extract_program(header, "\n    return math.floor(n + 1.5)")) == 2


def test_assignments_of_the_header_stay_and_of_the_rest_those_that_are_read():
    program = extract_program("LIMIT = 9\n\n" + HEADER, "\n    return n + ONE\n\nONE = 1\ntwo = 2")
    assert program.startswith("LIMIT = 9\n")
    assert program.endswith("    return n + ONE\nONE = 1\n")


def test_text_that_never_parses_is_kept_and_fails_by_itself():
    program = extract_program(HEADER, "\n    return (n +\n```")
    assert "return (n +" in program
    with pytest.raises(SyntaxError):
        value(program)


def test_an_empty_completion_is_no_program():
    with pytest.raises(SyntaxError):
        value(extract_program("def inc(n):\n", "\n```"))


@given(st.text(max_size=200))
def test_no_text_breaks_the_extraction(text):
    assert extract_program(HEADER, text).startswith("def inc(n: int) -> int:")
    parse_asserts(text)
    normalise(text)


def test_programs_are_equal_but_for_comments_docstrings_and_layout():
    one = HEADER + "    return n+1  # more\n"
    same = "def inc(n: int) -> int:\n    return (n + 1)\n"
    other = "def inc(n: int) -> int:\n    return 1 + n\n"
    assert normalise(one) == normalise(same) != normalise(other)
    assert group_equal([one, other, same, "no program ("]) == [[0, 2], [1], [3]]


def test_asserts_are_whole_lines_each_once_in_one_spelling():
    text = (
        "assert inc(1)==2\nassert inc( 1 ) == 2, 'message'\n  assert inc(2) == 3\n"
        "assert inc(3) == \nassert inc(4) == 5; import os\nprint(inc(1))\nassert True\nassert inc(5"
    )
    assert parse_asserts(text) == ["assert inc(1) == 2", "assert inc(2) == 3", "assert True"]


def test_a_call_is_found_by_syntax_and_not_by_spelling():
    assert calls("assert 2 == inc(1)", "inc")
    assert not calls("assert 'inc(1)' == 'inc(1)'", "inc")
    assert not calls("assert x.inc(1)", "inc")


def test_the_stub_returns_nothing():
    assert value(stub_program(HEADER)) is None


@pytest.mark.parametrize("deep", ["+".join("1" * 500), "-" * 390 + "1"])
def test_an_expression_that_is_nested_too_deeply_is_kept_as_text(deep):
    assert deep in extract_program(HEADER, f"\n    return {deep}")
    assert normalise(f"x = {deep}") == f"x = {deep}"


@pytest.mark.parametrize("body", [f"0x{'f' * 4000}", "f\"{n.replace('\xa0', '')}\""])
def test_code_that_no_text_of_this_python_spells_is_kept_as_it_is(body):
    program = extract_program(HEADER, f"\n    return {body}\n")
    assert program.endswith(f"return {body}\n")
    assert normalise(program) == program.strip()
    assert parse_asserts(f"assert inc(1) == {body}") == []


def test_an_assert_that_is_nested_too_deeply_is_left_out():
    assert parse_asserts(f"assert {'-' * 390}1\nassert inc(1) == 2") == ["assert inc(1) == 2"]
