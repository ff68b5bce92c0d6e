"""The page that compares runs: what it reads of them, and what a real browser shows."""

import importlib.util
import json
from pathlib import Path

import pytest
from pydantic import BaseModel
from trillium.cli import app
from trillium.evaluation import Interval, bootstrap_mean
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium.report import Curves, SampleRows, Table, render_report
from trillium.report.compare_runs import compare_page, name_runs
from trillium.report.run_files import read_journal, read_measures, shared_files
from trillium.runs import Run
from trillium_code.records import TaskResult, write_records
from trillium_math.agent.trajectory import Trajectory, Turn
from trillium_math.records import write_records as write_trajectories
from typer.testing import CliRunner

_spec = importlib.util.spec_from_file_location(
    "in_browser", Path(__file__).with_name("test_in_browser.py")
)
chromium = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(chromium)

OUTCOMES = {
    "one": {"t0": (True, False), "t1": (False, False), "t2": (True, None)},
    "two": {"t0": (True, True), "t1": (True, False), "t2": (True, True)},
    "three": {"t0": (False, False), "t9": (True, True)},
}


class Config(BaseModel):
    beta: float
    steps: int = 4


def trajectory(problem, reward, text):
    turns = (Turn("system", "s"), Turn("user", f"What is {problem}?"), Turn("assistant", text))
    return Trajectory(problem, problem, "4", turns, (1, 2), ((1, 2),), "answered", "4", reward)


def make_run(folder, *, beta, text="return 1"):
    """Write a run folder as the applications do: their records, their journals."""
    name = folder.name
    with Run.open(folder, Config(beta=beta), seed=0) as run:
        stage = run.stage("evaluate", {"beta": str(beta)})
        files = {
            "metrics.jsonl": [
                {"step": s, "loss": beta / s, "rewards/margins": s * beta, "odd": 1}
                for s in (1, 2, 3)
            ],
            "evaluations.jsonl": [{"step": 2, "eval_loss": beta}],
            "evaluation.jsonl": [
                {"name": "beams", "n_users": 3, "R@5": {"mean": beta, "low": 0.1, "high": 0.6}}
            ],
        }
        for file, rows in files.items():
            (stage.work / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
        results = [
            TaskResult(task, "easy", passed, (f"def {task}():\n    {text}", "pass"))
            for task, passed in OUTCOMES[name].items()
        ]
        write_records(stage.work / "results_after.jsonl", results)
        found = [trajectory("2 + 2", beta > 0.15, f"It is {text}.")]
        write_trajectories(stage.work / "after.jsonl", found)
        names = [*files, "results_after.jsonl", "after.jsonl"]
        stage.finish(names, {"tasks": 3, "accuracy": beta})
    return folder


@pytest.fixture
def folders(tmp_path):
    return [
        make_run(tmp_path / "one", beta=0.1),
        make_run(tmp_path / "two", beta=0.2, text=chromium.ATTACK),
        make_run(tmp_path / "three", beta=0.3),
    ]


def blocks(page, section):
    (found,) = [one for one in page.sections if one.title == section]
    return found.blocks


def test_settings_and_figures_have_a_column_per_run(folders):
    page = compare_page(folders)
    (settings,) = blocks(page, "Settings")
    assert settings.columns == ("setting", "one", "two", "three")
    assert settings.rows == (("beta", "0.1", "0.2", "0.3"),)
    (figures,) = blocks(page, "Stages")
    rows = {row[0]: row[1:] for row in figures.rows}
    assert rows["evaluate: accuracy"] == (0.1, 0.2, 0.3)
    assert rows["evaluate: tasks"] == (3, 3, 3)


def test_curves_of_all_runs_share_a_plot_and_known_measures_come_first(folders):
    curves = blocks(compare_page(folders), "Training: metrics.jsonl")
    assert [one.title for one in curves] == ["Loss", "Reward margin", "odd"]
    assert all(isinstance(one, Curves) for one in curves)
    assert [one.name for one in curves[0].series] == ["one", "two", "three"]
    assert curves[0].series[1].x == (1.0, 2.0, 3.0)
    assert curves[0].series[1].y == pytest.approx((0.2, 0.1, 0.2 / 3))
    (held_out,) = blocks(compare_page(folders), "Training: evaluations.jsonl")
    assert held_out.title == "Loss, held out"


def test_results_have_intervals_and_gains_are_of_shared_tasks(folders):
    right, against, measures = blocks(compare_page(folders), "Evaluation")
    rows = {row[0]: row[1:] for row in right.rows}
    # The sample that the sandbox lost counts for nothing: t2 of the first run is 1 of 1.
    assert rows["results_after.jsonl"][0] == bootstrap_mean([0.5, 0.0, 1.0])
    assert rows["after.jsonl"][0] == Interval(0.0, 0.0, 0.0)
    gains = {tuple(row[:2]): row[2:] for row in against.rows}
    n, gain, *counts, p = gains["results_after.jsonl", "two"]
    assert (n, counts) == (3, [2, 1, 0])
    assert gain.mean == pytest.approx(1 / 3)
    assert p == 0.5
    n, gain, *counts, _ = gains["results_after.jsonl", "three"]
    assert (n, gain.mean, counts) == (1, -0.5, [0, 0, 1])
    assert measures.rows == (
        ("beams: R@5", *(Interval(beta, 0.1, 0.6) for beta in (0.1, 0.2, 0.3))),
    )


def test_samples_of_shared_prompts_stand_side_by_side(folders):
    by_title = {one.title: one for one in blocks(compare_page(folders), "Samples")}
    programs = by_title["results_after.jsonl"]
    assert isinstance(programs, SampleRows)
    rows = {row.name: row for row in programs.rows}
    assert set(rows) == {"t0", "t1", "t2"}
    assert [s and s.is_good for s in rows["t0"].samples] == [True, True, False]
    assert [s and s.is_good for s in rows["t1"].samples] == [False, True, None]
    # Tasks on which the runs differ come first.
    assert [row.name for row in programs.rows] == ["t0", "t1", "t2"]
    (row,) = by_title["after.jsonl"].rows
    assert row.prompt == "What is 2 + 2?"
    assert row.samples[0].text == "[assistant] It is return 1."


def test_prompts_that_read_otherwise_are_not_shared(folders):
    other = trajectory("2 + 2", 1.0, "4")
    turns = (Turn("user", "What is two and two?"), other.turns[-1])
    changed = Trajectory(**{**vars(other), "turns": turns})
    for folder in folders[1:]:
        write_trajectories(folder / "after.jsonl", [changed])
    by_title = {one.title: one for one in blocks(compare_page(folders), "Samples")}
    (row,) = by_title["after.jsonl"].rows
    assert [sample is None for sample in row.samples] == [True, False, False]


def test_runs_are_named_as_shortly_as_tells_them_apart():
    assert name_runs([Path("runs/a"), Path("runs/b")]) == ("a", "b")
    assert name_runs([Path("x/run"), Path("y/run")]) == ("x/run", "y/run")
    assert name_runs([Path("run"), Path("run")]) == ("1: run", "2: run")


def test_rows_without_steps_are_numbered_and_what_is_no_number_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"loss": 2.0, "name": "x"}\n{"loss": 1.0}\n')
    assert read_journal(path) == {"loss": ((1.0, 2.0), (2.0, 1.0))}
    assert read_journal(tmp_path / "none.jsonl") == {}
    assert read_measures(path) == {}


def test_work_folders_of_unfinished_stages_are_left_out(folders):
    for folder in folders:
        (folder / ".work").mkdir(exist_ok=True)
        (folder / ".work" / "rows.jsonl").write_text("{}\n")
    assert ".work/rows.jsonl" not in shared_files(folders)


def test_the_command_writes_the_page_and_wrong_folders_are_bad_input(tmp_path, folders):
    page = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["runs", "compare", *map(str, folders), "--html", str(page)])
    assert done.exit_code == 0, done.output
    assert done.output.endswith(f"page: {page}\n")
    assert "<script" not in page.read_text()
    for targets in (folders[:1], [folders[0], tmp_path]):
        command = ["runs", "compare", *map(str, targets), "--html", str(tmp_path / "no.html")]
        assert CliRunner().invoke(app, command).exit_code == 2
    assert not (tmp_path / "no.html").exists()


def test_two_real_runs_share_their_training_curves(tmp_path):
    model = tmp_path / "model"
    tiny_policy(seed=3).save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    pairs = tmp_path / "pairs.jsonl"
    row = {"prompt": "Name a colour.", "chosen": "Blue.", "rejected": "A spoon."}
    pairs.write_text("".join(json.dumps({**row, "id": str(n)}) + "\n" for n in range(4)))
    for name, beta in (("low", 0.1), ("high", 0.9)):
        settings = [
            *(f"data.path={pairs}", f"policy.base={model}", f"objective.beta={beta}"),
            *("train.max_steps=3", f"output={tmp_path / name}", "policy.dtype=float32"),
        ]
        done = CliRunner().invoke(app, ["train", "minimal", *settings])
        assert done.exit_code == 0, done.output
    page = compare_page([tmp_path / "low", tmp_path / "high"])
    (settings,) = blocks(page, "Settings")
    assert isinstance(settings, Table)
    assert ("objective.beta", "0.1", "0.9") in settings.rows
    loss = blocks(page, "Training: metrics.jsonl")[0]
    assert [one.name for one in loss.series] == ["low", "high"]
    # Before the first step the policy is the reference, whatever beta is.
    assert [one.y[0] for one in loss.series] == pytest.approx([0.693147, 0.693147], abs=1e-5)
    assert len(loss.series[0].x) == 3


@pytest.mark.slow
@pytest.mark.security
@pytest.mark.skipif(chromium.CHROMIUM is None, reason="no chromium on PATH")
def test_a_browser_shows_curves_tables_and_samples_and_runs_nothing(tmp_path, folders):
    log = tmp_path / "net.json"
    html = render_report(compare_page(folders))
    run = chromium.browse(tmp_path, html, "--dump-dom", f"--log-net-log={log}")
    assert "<title>3 runs compared</title>" in run.stdout
    # loss, margins and odd of the steps, loss of the held-out rows
    assert run.stdout.count('<svg role="img"') == 4
    assert "<script" not in run.stdout
    assert "<img" not in run.stdout
    assert 'class="sides many"' in run.stdout
    assert "document.title='owned'" in run.stdout
    assert chromium.console(run) == []
    assert chromium.requested(log) == set()
    picture = tmp_path / "page.png"
    chromium.browse(tmp_path, html, f"--screenshot={picture}")
    pixels = (chromium.imread(picture)[..., :3] * 255).round().astype(int)
    for color in ("#0b6ca8", "#c8500a", "#1f7a58"):
        assert chromium.share_of(pixels, color) > 0.0001
