import pytest
from trillium.evaluation import Interval
from trillium.report.text import (
    flatten,
    format_bounds,
    format_cell,
    mark_changed_lines,
    show_invisible,
)


@pytest.mark.security
def test_characters_that_deceive_the_eye_are_spelled_out():
    assert show_invisible("a\u202eb\u200bc") == "a⟨U+202E⟩b⟨U+200B⟩c"
    assert show_invisible("\x1b[31m\x00") == "⟨U+001B⟩[31m⟨U+0000⟩"
    show_invisible("\ud800").encode()
    assert show_invisible("tab\tline\nü€漢") == "tab\tline\nü€漢"


def test_endless_text_is_cut_and_says_so():
    shown = show_invisible("x" * 25_000)
    assert shown.startswith("x" * 20_000 + "\n")
    assert shown.endswith("[5,000 more characters are not shown]")


def test_lines_that_the_other_side_lacks_are_marked():
    left, right = mark_changed_lines("a\nb\nc", "a\nX\nc\nd")
    assert left == [("a", False), ("b", True), ("c", False)]
    assert right == [("a", False), ("X", True), ("c", False), ("d", True)]


def test_thousands_of_lines_are_not_aligned():
    left, right = mark_changed_lines("\n" * 9_000, "\n" * 9_001)
    assert len(left) == 9_001
    assert not any(is_changed for _, is_changed in left + right)


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (None, "n/a"),
        (1234567, "1,234,567"),
        (0.123456, "0.1235"),
        (1234.5, "1,234"),
        (2.5e6, "2,500,000"),
        (1e-7, "1e-07"),
        (Interval(0.25, 0.2, 0.3), "0.250"),
        ("text", "text"),
    ],
)
def test_cells_are_readable(cell, shown):
    assert format_cell(cell) == shown


def test_only_intervals_have_bounds():
    assert format_bounds(Interval(0.25, 0.2, 0.3)) == "0.200 to 0.300"
    assert format_bounds(0.25) == ""


def test_settings_become_dotted_keys():
    nested = {"model": {"name": "tiny", "dtype": None}, "stop": ["a", "b"], "empty": {}, "none": []}
    assert list(flatten(nested)) == [
        ("model.name", "tiny"),
        ("model.dtype", "n/a"),
        ("stop", "a, b"),
        ("empty", "{}"),
        ("none", "none"),
    ]
