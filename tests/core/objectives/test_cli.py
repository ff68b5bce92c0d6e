import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from trillium.cli import exit_code
from trillium.objectives.cli import app
from trillium.objectives.describe import markdown_table
from trillium.objectives.table import OBJECTIVES
from typer.testing import CliRunner

GOLDEN = Path(__file__).parent / "golden"
run = CliRunner().invoke


def test_list_prints_every_objective() -> None:
    result = run(app, ["list"])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == list(OBJECTIVES)


def test_list_prints_the_table_of_the_readme() -> None:
    assert run(app, ["list", "--markdown"]).stdout.strip() == markdown_table()


def test_list_prints_json_lines() -> None:
    lines = run(app, ["list", "--json"]).stdout.splitlines()
    assert [json.loads(line)["arxiv"] for line in lines] == [
        row.arxiv for row in OBJECTIVES.values()
    ]


def test_show_prints_the_formula() -> None:
    assert "Eq. 7" in run(app, ["show", "dpo"]).stdout


def test_show_of_an_unknown_name_exits_with_2() -> None:
    result = run(app, ["show", "dqo"])
    assert result.exception is not None
    assert exit_code(result.exception) == 2
    assert "did you mean dpo?" in str(result.exception)


def test_check_exits_with_0_when_every_number_agrees() -> None:
    result = run(app, ["check", str(GOLDEN / "dpo.json")])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "ok       dpo.json default"
    assert "4 agree, 0 differ" in result.stderr


def test_check_prints_one_object_per_case() -> None:
    result = run(app, ["check", "--json", str(GOLDEN / "dpo.json")])
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["case"] for row in rows] == ["default", "smoothed", "reference_free", "far"]
    assert set(rows[0]) == {"file", "case", "losses", "loss", "grads"}


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_check_exits_with_1_on_a_mismatch(tmp_path: Path, as_json: list[str]) -> None:
    content = json.loads((GOLDEN / "dpo.json").read_text(encoding="utf-8"))
    content["cases"][1]["expected"]["loss"] += 1e-6
    wrong = tmp_path / "dpo.json"
    wrong.write_text(json.dumps(content), encoding="utf-8")
    result = run(app, ["check", *as_json, str(wrong)])
    assert result.exit_code == 1
    assert "3 agree, 1 differ" in result.stderr


def test_check_of_a_missing_file_exits_with_2(tmp_path: Path) -> None:
    result = run(app, ["check", str(tmp_path / "none.json")])
    assert result.exception is not None
    assert exit_code(result.exception) == 2
    assert "cannot be read" in str(result.exception)


def test_a_case_that_cannot_be_computed_hides_no_other(tmp_path: Path) -> None:
    """In a process of its own, because the tests check shapes where a user has none checked."""
    content = json.loads((GOLDEN / "dpo.json").read_text(encoding="utf-8"))
    content["cases"][1]["inputs"]["ref_rejected_logps"].pop()
    (tmp_path / "bad.json").write_text(json.dumps(content), encoding="utf-8")
    files = [tmp_path / "bad.json", tmp_path / "none.json", GOLDEN / "gpo.json"]
    script = "from trillium.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", script, "objectives", "check", *files],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        *[["ok", "bad.json"]] * 3,
        *[["ok", "gpo.json"]] * 2,
    ]
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "5 cases in 3 files: 5 agree, 0 differ, 0 have nothing to compare with",
        "trillium: bad.json: case smoothed: pairs: 4 chosen and 3 rejected responses (needs one "
        "rejected for each chosen); pass both sides of every pair",
        f"{tmp_path}/none.json: cannot be read (No such file or directory); check the path",
    ]
