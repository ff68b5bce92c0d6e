import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from taught_policy import teach, write_tasks

from trillium.config import load_config
from trillium.errors import DataError
from trillium_code.config import CodeConfig
from trillium_code.pipeline import run_code
from trillium_code.report_page import write_report

pytestmark = pytest.mark.e2e

CONFIG = """
output: {folder}/run
policy: {{base: {folder}/model, dtype: float32, lora: {{r: 4, alpha: 8}}}}
tasks:
  train: {{source: {folder}/tasks.jsonl, split: train}}
  held_out: {{source: {folder}/tasks.jsonl, split: held_out}}
prompt: {{program_style: completion, test_style: completion, test_shots: 0}}
programs: {{n_samples: 8, temperature: 1.0, top_p: 1.0, max_new_tokens: 30}}
tests: {{n_samples: 6, temperature: 1.0, top_p: 1.0, max_new_tokens: 20}}
sandbox: {{wall_s: 2.0}}
max_rows: 8
rank: {{n_rejected: 2}}
objective: {{name: rpo, beta: 0.1, eta: 0.2, sft: mean}}
train: {{learning_rate: 3.0e-3, num_train_epochs: 6, per_device_train_batch_size: 2, save_steps: 2}}
evaluate: {{sampling: {{n_samples: 4, temperature: 1.0, top_p: 1.0, max_new_tokens: 30}}, k: [1, 4]}}
"""
ROWS = (
    "samples_programs.jsonl",
    "samples_tests.jsonl",
    "matrices.jsonl",
    "pairs.jsonl",
    "rankings.jsonl",
    "metrics.jsonl",
    "samples_after.jsonl",
    "results_before.jsonl",
    "results_after.jsonl",
    "adapter/adapter_model.safetensors",
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with tasks, a taught model, a run file, and a cache of its own."""
    folder = tmp_path_factory.mktemp("code")
    teach(write_tasks(folder / "tasks.jsonl"), folder / "model")
    (folder / "run.yaml").write_text(CONFIG.format(folder=folder))
    return folder


@pytest.fixture(autouse=True)
def _own_cache(workplace, monkeypatch):
    monkeypatch.setenv("TRILLIUM_CACHE", str(workplace / "cache"))


@pytest.fixture(scope="module")
def finished(workplace):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRILLIUM_CACHE", str(workplace / "cache"))
        config = load_config(CodeConfig, workplace / "run.yaml")
        result = run_code(config)
        write_report(config, result)
    return config, result


def contents(folder):
    return {name: (folder / name).read_bytes() for name in ROWS}


def test_the_journey_ends_with_pairs_an_adapter_and_a_report(finished):
    config, result = finished
    assert set(result.stages) == {
        *("sample_programs", "sample_tests", "execute", "pair", "sample_before", "judge_before"),
        *("align", "sample_after", "judge_after"),
    }
    assert result.pairs
    assert {pair.task_id for pair in result.pairs} <= {"t/inc", "t/dec", "t/neg"}
    assert {found.task_id for found in result.after} == {"t/dbl", "t/sqr"}
    assert all(len(found.passed) == 4 for found in (*result.before, *result.after))
    page = (config.output / "report.html").read_text()
    assert "pass@1" in page
    assert "t/dbl" in page


def test_chosen_programs_pass_what_rejected_ones_fail(finished):
    _, result = finished
    right = {"t/inc": "return n + 1", "t/dec": "return n - 1", "t/neg": "return -n"}
    chosen = [right[pair.task_id] in pair.chosen for pair in result.pairs]
    rejected = [right[pair.task_id] in pair.rejected for pair in result.pairs]
    assert sum(chosen) > 0.5 * len(chosen)
    assert sum(rejected) < 0.2 * len(rejected)


def test_training_raises_the_margin(finished):
    config, _ = finished
    rows = [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["margin_nats"] == pytest.approx(0.0, abs=1e-3)
    assert rows[-1]["margin_nats"] > 1.0


def test_the_same_command_again_does_nothing(finished):
    config, result = finished
    manifest = (config.output / "run.json").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in config.output.glob("*.jsonl")}
    again = run_code(config)
    assert again == result
    assert (config.output / "run.json").read_bytes() == manifest
    assert {path: path.stat().st_mtime_ns for path in config.output.glob("*.jsonl")} == times


def test_another_learning_rate_samples_nothing_again(finished, workplace):
    config, result = finished
    before = (config.output / "samples_programs.jsonl").stat().st_mtime_ns
    changed = load_config(CodeConfig, workplace / "run.yaml", ["train.learning_rate=1e-3"])
    other = run_code(changed)
    assert (config.output / "samples_programs.jsonl").stat().st_mtime_ns == before
    assert other.pairs == result.pairs
    assert other.stages["align"].outputs != result.stages["align"].outputs
    run_code(config)


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(finished, workplace):
    config, _ = finished
    expected = contents(config.output)
    folder = workplace / "killed"
    command = [sys.executable, "-m", "trillium", "code", "run", str(workplace / "run.yaml")]
    environment = {**os.environ, "TRILLIUM_CACHE": str(workplace / "other-cache")}
    seen = set()
    for moment in ("batches.jsonl", "matrices.jsonl", "checkpoint-2", "results_after.jsonl"):
        process = subprocess.Popen(
            [*command, "--output", str(folder)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if any(folder.glob(f".work/*/{moment}")):
                process.send_signal(signal.SIGKILL)
                seen.add(moment)
                break
        process.communicate()
    assert len(seen) >= 2
    done = subprocess.run([*command, "--output", str(folder)], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert contents(folder) == expected
    assert re.search(r"report: .*killed/report\.html", done.stdout.decode())


def test_a_dry_run_counts_and_starts_nothing(workplace):
    command = [sys.executable, "-m", "trillium", "code", "run", str(workplace / "run.yaml")]
    folder = workplace / "dry"
    done = subprocess.run(
        [*command, "--dry-run", "--output", str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "training: 3 tasks (3 easy)" in done.stdout
    assert "held out: 2 tasks" in done.stdout
    assert "24 completions" in done.stdout
    assert "return n + 1" in done.stdout
    assert not folder.exists()


def test_tasks_that_give_no_pair_say_what_to_change(workplace):
    config = load_config(
        CodeConfig,
        workplace / "run.yaml",
        [f"output={workplace}/none", "rank.min_agreement=1000"],
    )
    with pytest.raises(DataError, match=r"no pair from 3 tasks \(3 nothing_to_tell_apart\)"):
        run_code(config)
