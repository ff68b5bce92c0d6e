"""YAML keeps the line of every key and the meaning of every scalar."""

import math

import pytest
from trillium.yamlfile import dump_yaml, parse_yaml


def test_every_key_has_its_line() -> None:
    parsed = parse_yaml("a:\n  b: 1\n  c:\n    - x\n    - d: 2\n", where="file")
    assert parsed.lines[("a",)] == 1
    assert parsed.lines[("a", "b")] == 2
    assert parsed.lines[("a", "c", 0)] == 4
    assert parsed.lines[("a", "c", 1, "d")] == 5
    assert parsed.values == {"a": {"b": 1, "c": ["x", {"d": 2}]}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("-2E+3", -2000.0),
        (".5", 0.5),
        ("1_000", 1000),
        ("+7", 7),
        (".inf", math.inf),
        ("true", True),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("010", "010"),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
        ('"1e-5"', "1e-5"),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: object) -> None:
    parsed = parse_yaml(f"key: {text}\n", where="file").values
    assert parsed == {"key": value}
    assert isinstance(parsed, dict)
    assert type(parsed["key"]) is type(value)
    assert parse_yaml(dump_yaml(parsed), where="dump").values == parsed


@pytest.mark.parametrize(
    "text", ["!!int abc", "!!int ''", "!!float x", "!!bool foo", "!!timestamp foo", "9" * 5000]
)
def test_a_scalar_that_is_not_what_it_says_is_a_problem_of_its_line(text: str) -> None:
    parsed = parse_yaml(f"one: 1\nkey: {text}\n", where="file")
    assert parsed.values == {"one": 1, "key": None}
    assert [line for line, _ in parsed.problems] == [2]
    assert "cannot be read as" in parsed.problems[0][1]
