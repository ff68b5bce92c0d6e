import json
from pathlib import Path

import pytest
import trillium
from trillium.errors import ConfigError
from trillium.objectives.describe import (
    README_MARKS,
    console_table,
    describe,
    json_rows,
    markdown_table,
)
from trillium.objectives.table import OBJECTIVES

README = Path(__file__).parents[3] / "README.md"


def test_every_objective_has_one_line_in_each_list() -> None:
    assert [line.split()[0] for line in console_table().splitlines()[1:]] == list(OBJECTIVES)
    assert [json.loads(line)["name"] for line in json_rows()] == list(OBJECTIVES)
    assert len(markdown_table().splitlines()) == len(OBJECTIVES) + 2


def test_a_row_names_paper_needs_and_parity() -> None:
    assert (
        "| `kto` | [2402.01306](https://arxiv.org/abs/2402.01306) | single responses, reference, "
        "mismatched responses, label `label` | Thumbs up or down on single responses; "
        "no pairs needed. | yes | same |"
    ) in markdown_table()


def test_one_objective_is_shown_with_formula_and_bounds() -> None:
    text = describe("dpo")
    assert "z    = beta * (u_w - u_l)" in text
    assert "label_smoothing = 0.0   (>= 0, < 0.5)" in text
    assert "TRL 1.16: same" in text
    assert "trainer: yes" in text
    assert "trainer: yes, from rankings" in describe("lipo")
    assert "trainer: no, a recipe: recipes/rejection.py" in describe("rso")
    assert "trainer: no, a function to call" in describe("gpm")


def test_needs_are_those_of_the_defaults_and_options_add_theirs() -> None:
    assert "| pairs, lengths | Supervised fine-tuning with an odds-ratio" in markdown_table()
    assert "needs: pairs, lengths (at most, by its options: pairs, lengths, scored prompts)" in (
        describe("orpo")
    )
    assert "at most" not in describe("simpo")


def test_a_recipe_that_is_named_is_there() -> None:
    folder = Path(trillium.__file__).parent / "training"
    named = [row.recipe for row in OBJECTIVES.values() if row.recipe is not None]
    assert len(named) == 8
    assert all((folder / each).is_file() for each in named)


def test_an_unknown_objective_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r'no objective "simp" .*did you mean simpo\?'):
        describe("simp")


def test_the_readme_shows_this_table() -> None:
    start, end = README_MARKS
    text = README.read_text(encoding="utf-8") if README.is_file() else ""
    if start not in text:
        pytest.skip(f"README.md has no {start} yet")
    assert text.split(start)[1].split(end)[0].strip() == markdown_table()
