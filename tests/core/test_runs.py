"""Run folders: finished stages are skipped, damaged ones redone, killed ones continued."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict
from trillium.compare import describe, summarise
from trillium.errors import ConfigError, DataError
from trillium.files import hash_path
from trillium.manifest import Manifest, find_runs, read_manifest
from trillium.runs import Run, hash_config


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True)
    n_rows: int = 6
    rate: float = 1e-5


def compute(folder: Path, *, scale: str = "2", stop_after: int | None = None) -> list[str]:
    """Run a two-stage job and return what was done; `stop_after` rows it is interrupted."""
    done = []
    with Run.open(folder, Settings(), seed=3) as run:
        rows_stage = run.stage("square", {"scale": scale})
        if rows_stage.is_due:
            with rows_stage.rows("rows.jsonl", key="id") as rows:
                for i in range(6):
                    if str(i) in rows.finished:
                        continue
                    if len(rows.finished) == stop_after:
                        raise KeyboardInterrupt
                    rows.append({"id": str(i), "value": i * i * int(scale)})
                    done.append(f"row {i}")
            rows_stage.finish(["rows.jsonl"], {"rows": 6})
        total = run.stage("total", {"rows": rows_stage.hash})
        if total.is_due:
            (total.work / "model").mkdir()
            lines = rows_stage.path("rows.jsonl").read_text().splitlines()
            value = sum(json.loads(line)["value"] for line in lines)
            (total.work / "model" / "weights").write_text(str(value))
            total.finish(["model"], {"sum": value, "half": value / 2})
            done.append("total")
    return done


EVERYTHING = [f"row {i}" for i in range(6)] + ["total"]


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    assert compute(tmp_path / "run") == EVERYTHING
    assert (tmp_path / "run" / "model" / "weights").read_text() == "110"
    assert compute(tmp_path / "run") == []


def test_the_folder_says_what_made_it(tmp_path: Path) -> None:
    compute(tmp_path)
    assert (tmp_path / "config.yaml").read_text() == "n_rows: 6\nrate: 1.0e-05\n"
    facts = json.loads((tmp_path / "environment.json").read_text())
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["packages"]["trillium"] == "0.1.0"
    assert facts["n_cpus"] >= 1
    manifest = read_manifest(tmp_path)
    assert manifest.seed == 3
    assert manifest.attempts == {}
    assert manifest.stages["total"].counts == {"sum": 110, "half": 55.0}
    assert manifest.stages["square"].outputs == {"rows.jsonl": hash_path(tmp_path / "rows.jsonl")}
    assert not list((tmp_path / ".work").iterdir())


def test_changed_inputs_recompute_the_stage_and_what_follows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compute(tmp_path)
    assert compute(tmp_path, scale="3") == EVERYTHING
    assert caplog.messages == [
        f"{tmp_path}: stage square was finished with other inputs (scale); it and what follows "
        "are computed again and replace what is there"
    ]
    assert (tmp_path / "model" / "weights").read_text() == "165"


def test_a_run_knows_which_stages_are_those_of_its_last_command(tmp_path: Path) -> None:
    compute(tmp_path)
    assert read_manifest(tmp_path).concluded == ["square", "total"]
    with Run.open(tmp_path, Settings(), seed=3) as run:
        assert not run.stage("square", {"scale": "2"}).is_due
    manifest = read_manifest(tmp_path)
    assert list(manifest.current) == ["square"]
    assert list(manifest.stages) == ["square", "total"]
    assert "total" not in describe(tmp_path)
    assert summarise(tmp_path).endswith("  square")


def test_a_command_that_was_stopped_has_concluded_nothing(tmp_path: Path) -> None:
    compute(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        compute(tmp_path, scale="3", stop_after=2)
    assert read_manifest(tmp_path).is_stopped
    assert summarise(tmp_path).endswith("  square, total; unfinished: square")
    with Run.open(tmp_path, Settings(), seed=3) as run:
        run.stage("square", {"scale": "3"})
    assert read_manifest(tmp_path).concluded == [], "what it left unfinished is not its result"


def test_an_interrupted_change_does_not_cost_the_finished_stage(tmp_path: Path) -> None:
    compute(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        compute(tmp_path, scale="3", stop_after=2)
    assert compute(tmp_path) == []


def test_a_damaged_output_is_recomputed_and_what_follows_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compute(tmp_path)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text().replace("4", "5", 1))
    assert compute(tmp_path) == EVERYTHING[:-1]
    assert caplog.messages == [f"{rows}: has changed on disk; stage square is computed again"]


def test_a_missing_output_is_recomputed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    compute(tmp_path)
    (tmp_path / "model" / "weights").unlink()
    (tmp_path / "model").rmdir()
    assert compute(tmp_path) == ["total"]
    assert caplog.messages == [f"{tmp_path / 'model'}: is missing; stage total is computed again"]


def test_an_interrupted_stage_continues_to_the_same_bytes(tmp_path: Path) -> None:
    compute(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        compute(tmp_path / "parts", stop_after=4)
    assert not (tmp_path / "parts" / "rows.jsonl").exists(), "unfinished rows stay out of the way"
    assert compute(tmp_path / "parts") == ["row 4", "row 5", "total"]
    for name in ("rows.jsonl", "model", "config.yaml"):
        assert hash_path(tmp_path / "parts" / name) == hash_path(tmp_path / "whole" / name)


JOB = """
import os, signal, sys
from pathlib import Path
from pydantic import BaseModel
from trillium import files
from trillium.runs import Run

class Settings(BaseModel):
    n_rows: int = 20

calls = 0
def count_and_die(*ignored):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

# Every write ends in fsync, so dying at the n-th fsync visits each moment that matters.
real = os.fsync
os.fsync = lambda descriptor: (count_and_die(), real(descriptor))[1]
with Run.open(Path(sys.argv[1]), Settings(), seed=0) as run:
    stage = run.stage("count", {"n": "20"})
    if stage.is_due:
        with stage.rows("rows.jsonl", key="id") as rows:
            for i in range(5):
                if str(i) not in rows.finished:
                    rows.append({"id": str(i), "text": "x" * i})
        (stage.work / "note.txt").write_text("n")
        stage.finish(["rows.jsonl", "note.txt"], {"rows": 5})
print("done", calls)
"""


def test_a_kill_at_any_write_ends_in_the_same_bytes(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    n_writes = int(_job(whole, 0).stdout.split()[1])
    assert n_writes > 12
    for moment in range(1, n_writes + 1):
        folder = tmp_path / f"killed-{moment}"
        assert _job(folder, moment).returncode == -signal.SIGKILL
        assert _job(folder, 0).stdout.startswith("done")
        for name in ("rows.jsonl", "note.txt", "config.yaml"):
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), (moment, name)
        assert read_manifest(folder).stages["count"].counts == {"rows": 5}
        assert not list((folder / ".work").iterdir())


def test_two_processes_cannot_work_in_one_folder(tmp_path: Path) -> None:
    with Run.open(tmp_path, Settings(), seed=0):
        reply = _job(tmp_path, 0)
    assert reply.returncode == 1
    assert f"ConfigError: {tmp_path}: is in use by process {os.getpid()}" in reply.stderr


def test_time_before_a_kill_counts(tmp_path: Path) -> None:
    with Run.open(tmp_path, Settings(), seed=0) as run:
        stage = run.stage("slow", {})
        with stage.rows("rows.jsonl", key="id") as rows:
            rows.append({"id": "a"})
        began = run.manifest.attempts["slow"].started
        os.utime(stage.work / "rows.jsonl", (began + 40, began + 40))
    with Run.open(tmp_path, Settings(), seed=0) as run:
        record = run.stage("slow", {}).finish(["rows.jsonl"])
    assert 40 <= record.seconds < 60


def test_an_unfinished_stage_has_no_hash(tmp_path: Path) -> None:
    with (
        Run.open(tmp_path, Settings(), seed=0) as run,
        pytest.raises(DataError, match="stage first is not finished; run it first"),
    ):
        _ = run.stage("first", {}).hash


@pytest.mark.parametrize("output", ["../precious", "/precious", "a/../../precious", "."])
def test_a_manifest_cannot_reach_out_of_its_folder(tmp_path: Path, output: str) -> None:
    """Outputs of an earlier run are deleted by name when a stage is computed again."""
    precious = tmp_path / "precious"
    precious.write_text("x")
    compute(tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    manifest = json.loads(path.read_text())
    manifest["stages"]["square"]["outputs"][output] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(
        DataError, match=r"damaged \(stages.square.outputs: .* leads out of the run"
    ):
        compute(tmp_path / "run", scale="3")
    assert precious.read_text() == "x"


def test_a_folder_in_the_place_of_the_manifest_is_said(tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    with pytest.raises(DataError, match=r"run.json: cannot be read \(Is a directory\); move it"):
        compute(tmp_path)


def test_a_damaged_manifest_is_named_and_kept(tmp_path: Path) -> None:
    compute(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DataError, match=r"run.json: is damaged .*; delete it to compute the run"):
        compute(tmp_path)
    (tmp_path / "run.json").unlink()
    assert compute(tmp_path) == EVERYTHING


def test_a_folder_without_a_manifest_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a run folder"):
        read_manifest(tmp_path)
    compute(tmp_path / "a")
    compute(tmp_path / "deep" / "b")
    assert find_runs(tmp_path) == [tmp_path / "a", tmp_path / "deep" / "b"]
    assert isinstance(read_manifest(tmp_path / "a"), Manifest)


def test_equal_settings_hash_equal() -> None:
    assert hash_config(Settings()) == hash_config(Settings(n_rows=6))
    assert hash_config(Settings()) != hash_config(Settings(n_rows=7))


def test_a_file_where_the_run_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match="run: is a file, not a folder"):
        compute(tmp_path / "run")


def _job(folder: Path, die_at: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", JOB, str(folder), str(die_at)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_folder_of_another_command_is_left_alone(tmp_path: Path) -> None:
    class OtherSettings(BaseModel):
        n_users: int = 3

    compute(tmp_path / "run")
    before = hash_path(tmp_path / "run")
    with pytest.raises(ConfigError, match="holds the run of another command"):
        Run.open(tmp_path / "run", OtherSettings(), seed=3)
    assert hash_path(tmp_path / "run") == before
    assert compute(tmp_path / "run") == []


def test_going_back_to_finished_inputs_forgets_what_was_begun_meanwhile(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    compute(folder)
    with pytest.raises(KeyboardInterrupt):
        compute(folder, scale="3", stop_after=2)
    assert read_manifest(folder).attempts
    assert compute(folder) == []
    assert not read_manifest(folder).attempts
    assert not list((folder / ".work").glob("*"))
