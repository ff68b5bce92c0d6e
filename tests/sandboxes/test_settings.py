"""Settings that a program leaves behind in its interpreter, seen in ours."""

import decimal
import sys

import pytest
from trillium_sandbox.settings import Settings


def test_an_interpreter_as_it_was_is_no_news():
    decimal.getcontext()
    assert Settings().news() == []


def test_another_folder_and_another_variable_are_news(monkeypatch, tmp_path):
    settings = Settings()
    with monkeypatch.context() as patch:
        patch.setenv("TRILLIUM_ODD", "1")
        assert settings.news() == ["stale"]
        patch.chdir(tmp_path)
        assert settings.news() == ["stale"]
    assert settings.news() == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [("prec", 3), ("rounding", decimal.ROUND_UP), ("Emax", 9), ("capitals", 0), ("clamp", 1)],
)
def test_other_rules_for_decimals_are_news(setting, value):
    settings = Settings()
    with decimal.localcontext() as context:
        setattr(context, setting, value)
        assert settings.news() == ["counts"]
    with decimal.localcontext() as context:
        context.traps[decimal.Inexact] = True
        assert settings.news() == ["counts"]


def test_other_bounds_for_long_numbers_are_news():
    settings, bound = Settings(), sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        assert settings.news() == ["counts"]
    finally:
        sys.set_int_max_str_digits(bound)
