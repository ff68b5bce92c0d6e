"""The code application from tasks to report, on a tiny policy that knows right and wrong answers.

Random weights write no program, so there would be nothing to rank: a few seconds of next-token
training give the tiny policy several answers to each of five tasks.
"""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
import torch
from trillium.config import load_config
from trillium.errors import DataError
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium_code.config import CodeConfig
from trillium_code.pipeline import run_code
from trillium_code.prompts import PromptConfig, assert_prompts, program_prompts
from trillium_code.report_page import write_report
from trillium_code.task_files import read_tasks

pytestmark = pytest.mark.e2e

CONFIG = """
output: {folder}/run
policy: {{base: {folder}/model, dtype: float32, lora: {{r: 4, alpha: 8}}}}
tasks:
  train: {{source: {folder}/tasks.jsonl}}
  held_out: {{source: {folder}/tasks.jsonl}}
prompt: {{program_style: completion, test_style: completion, test_shots: 0}}
programs: {{n_samples: 8, temperature: 1.0, top_p: 1.0, max_new_tokens: 30}}
tests: {{n_samples: 6, temperature: 1.0, top_p: 1.0, max_new_tokens: 20}}
sandbox: {{wall_s: 2.0}}
max_rows: 8
rank: {{n_rejected: 2}}
objective: {{name: rpo, beta: 0.1, eta: 0.2, sft: mean}}
train: {{learning_rate: 3.0e-3, num_train_epochs: 6, per_device_train_batch_size: 2, save_steps: 2}}
evaluate:
  sampling: {{n_samples: 4, temperature: 1.0, top_p: 1.0, max_new_tokens: 30}}
  k: [1, 4]
"""
PROMPT = PromptConfig(program_style="completion", test_style="completion", test_shots=0)
RULES = {
    "inc": ("n + 1", "n", (1, 5, 8), "train"),
    "dec": ("n - 1", "n", (1, 5, 8), "train"),
    "neg": ("-n", "n", (1, 5, 8), "train"),
    "dbl": ("n * 2", "n", (1, 5, 8), "held_out"),
    "sqr": ("n * n", "n", (2, 5, 8), "held_out"),
}
TRILLIUM = (sys.executable, "-c", "from trillium.cli import main; main()")
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
    command = [*TRILLIUM, "code", "run", str(workplace / "run.yaml"), "--output", str(folder)]
    environment = {**os.environ, "TRILLIUM_CACHE": str(workplace / "other-cache")}
    for moment in ("samples_tests.jsonl", ".work/align-*/checkpoint-2"):
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while not any(folder.glob(moment)) and process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.02)
        process.kill()
        _, complaint = process.communicate()
        assert process.returncode == -signal.SIGKILL, complaint
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(folder) == expected
    assert re.search(r"report: .*killed/report\.html", done.stdout)


def test_a_dry_run_counts_and_starts_nothing(workplace):
    command = [*TRILLIUM, "code", "run", str(workplace / "run.yaml")]
    folder = workplace / "dry"
    done = subprocess.run(
        [*command, "--dry-run", "--output", str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "training: 3 tasks (3 easy)" in done.stdout
    assert "held out: 2 tasks" in done.stdout
    assert "24 completions" in done.stdout
    assert "-- path 1," in done.stdout
    assert not folder.exists()


def test_tasks_that_give_no_pair_say_what_to_change(workplace):
    config = load_config(
        CodeConfig,
        workplace / "run.yaml",
        [f"output={workplace}/none", "rank.min_agreement=1000"],
    )
    with pytest.raises(DataError, match=r"no pair from 3 tasks \(3 nothing_to_tell_apart\)"):
        run_code(config)


def write_tasks(path):
    """Write five tasks, three to train on and two held out, and return them."""
    rows = []
    for name, (right, wrong, inputs, split) in RULES.items():
        signature = f"def {name}(n):"
        rows.append(
            {
                "id": f"t/{name}",
                "entry_point": name,
                "signature": signature,
                "statement": f"{name}?",
                "tests": [f"assert {name}({n}) == {eval(right, {'n': n})}" for n in inputs],
                "band": "easy",
                "split": split,
                "solution": f"{signature}\n    return {right}\n",
                "wrong": [f"{signature}\n    return {wrong}\n"],
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_tasks(str(path))


def teach(tasks, folder):
    """Train on the reference, the wrong solution and the tests of each task; save to `folder`."""
    tokenizer, model = tiny_tokenizer(), tiny_policy(seed=1)
    texts = []
    prompts = zip(
        tasks,
        program_prompts(tasks, tokenizer, PROMPT),
        assert_prompts(tasks, tokenizer, PROMPT),
        strict=True,
    )
    for task, program, test in prompts:
        for solution in (task.solution, *task.wrong):
            texts.append((program, "\n" + solution.split("\n", 1)[1].rstrip("\n")))
        opening = f"assert {task.entry_point}("
        texts += [(test, line.removeprefix(opening)) for line in task.tests]
    rows = [
        (
            [*prompt, *tokenizer(text, add_special_tokens=False)["input_ids"], 2],
            len(prompt),
        )
        for prompt, text in texts
    ]
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [3] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor([[-100] * n + ids[n:] + [-100] * (width - len(ids)) for ids, n in rows])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _fit(model, ids, labels)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _fit(model, ids, labels):
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(250):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
