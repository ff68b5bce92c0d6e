"""The mathematics application from problems to report, on a tiny policy that knows its answers.

See `taught_math_policy` for that policy.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
from safetensors.torch import load_file
from trillium.config import load_config
from trillium.errors import ConfigError, DataError
from trillium.policies.tiny import tiny_tokenizer
from trillium.training.round_rows import read_trees
from trillium_math.agent.solve import SolveConfig, solve_problems
from trillium_math.config import MathConfig
from trillium_math.pipeline import run_math
from trillium_math.problems.problem_files import read_problems
from trillium_math.report_page import write_report
from trillium_math.summary import measure_gains, render_summary

from .taught_math_policy import furnish

pytestmark = pytest.mark.e2e

TRILLIUM = (sys.executable, "-c", "from trillium.cli import main; main()")
ROWS = (
    "demonstrations.jsonl",
    "warm_up/adapter/adapter_model.safetensors",
    "before.jsonl",
    "sample_0.jsonl",
    "select_0.jsonl",
    "train_0/metrics.jsonl",
    "sample_1.jsonl",
    "previous_1.jsonl",
    "train_1/adapter/adapter_model.safetensors",
    "after.jsonl",
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with problems, a taught model, a run file, and a cache of its own."""
    return furnish(tmp_path_factory.mktemp("math"))


@pytest.fixture(autouse=True)
def _own_cache(workplace, monkeypatch):
    monkeypatch.setenv("TRILLIUM_CACHE", str(workplace / "cache"))


@pytest.fixture(scope="module")
def finished(workplace):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRILLIUM_CACHE", str(workplace / "cache"))
        config = load_config(MathConfig, workplace / "run.yaml")
        result = run_math(config)
        gains = measure_gains(result, config.evaluate.k)
        write_report(config, result, gains)
    return config, result, gains


def test_the_journey_ends_with_trajectories_adapters_and_a_report(finished):
    config, result, gains = finished
    assert list(result.stages) == [
        *("demonstrate", "warm_up", "before", "sample_0", "select_0", "train_0"),
        *("sample_1", "previous_1", "select_1", "train_1", "after"),
    ]
    assert result.stages["demonstrate"].counts == {"made": 4, "unusable": 0}
    assert {one.problem_id for one in result.after} == {"t/e"}
    assert len(result.before) == len(result.after) == 4
    assert set(gains.by_measure) == {"accuracy", "pass@4", "majority"}
    page = (config.output / "report.html").read_text()
    assert "Accuracy by number of turns" in page
    assert "t/e" in page
    assert render_summary(gains, result.stages) is not None


def test_the_mixture_takes_its_share_from_the_policy_before(finished):
    config, *_ = finished
    rows = [
        [json.loads(line) for line in (config.output / f"{name}.jsonl").read_text().splitlines()]
        for name in ("sample_0", "sample_1", "previous_1")
    ]
    assert [len(found) for found in rows] == [16, 12, 4]
    first, second, previous = ({row["policy"] for row in found} for found in rows)
    assert first == previous
    assert first.isdisjoint(second)


def test_chosen_trajectories_are_right_and_both_keep_their_tokens(finished):
    config, *_ = finished
    lines = (config.output / "sample_0.jsonl").read_text().splitlines()
    sampled = {row["id"]: row for row in map(json.loads, lines)}
    trees = read_trees(config.output / "select_0.jsonl")
    assert trees
    for tree in trees:
        chosen, rejected = (sampled[name] for name in tree.id.split(">"))
        assert (chosen["reward"], rejected["reward"]) == (1.0, 0.0)
        for index, row in enumerate((chosen, rejected)):
            assert list(tree.path(index).ids) == row["token_ids"]
            assert sum(tree.path(index).scored) == sum(e - s for s, e in row["spans"])


def test_training_raises_the_margin(finished):
    config, *_ = finished
    lines = (config.output / "train_0" / "metrics.jsonl").read_text().splitlines()
    margins = [json.loads(line)["margin_nats"] for line in lines]
    assert margins[0] == pytest.approx(0.0, abs=1e-3)
    assert margins[-1] > 1.0


def test_the_same_command_again_does_nothing(finished):
    config, result, _ = finished
    manifest = (config.output / "run.json").read_bytes()
    assert run_math(config) == result
    assert (config.output / "run.json").read_bytes() == manifest


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(finished, workplace):
    config, *_ = finished
    folder = workplace / "killed"
    command = [*TRILLIUM, "math", "run", str(workplace / "run.yaml"), "--output", str(folder)]
    environment = {**os.environ, "TRILLIUM_CACHE": str(workplace / "other-cache")}
    for moment in (
        ".work/warm_up-*/warm_up/checkpoint-1/sealed.json",
        ".work/sample_0-*/chunks.jsonl",
        ".work/train_0-*/train_0/checkpoint-2",
    ):
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
    assert {name: (folder / name).read_bytes() for name in ROWS} == {
        name: (config.output / name).read_bytes() for name in ROWS
    }


@pytest.mark.parametrize("method", ["m_kto", "kto", "dpo", "rejection"])
def test_the_other_methods_learn_from_the_same_trajectories(finished, workplace, method):
    select = "select: {n_pairs: 4, loser_outcomes: [answered, turn_too_long, turn_limit]}"
    overrides = [f"output={workplace}/{method}", f"method={{name: {method}, {select}}}"]
    one_round = ["n_rounds=1", "n_from_previous=0"]
    config = load_config(MathConfig, workplace / "run.yaml", [*overrides, *one_round])
    result = run_math(config)
    trees = read_trees(config.output / "select_0.jsonl")
    assert {tree.n_paths for tree in trees} == {2 if method == "dpo" else 1}
    is_masked = [not all(path.scored[path.scored.index(True) :])
                 for tree in trees for path in map(tree.path, range(tree.n_paths))]  # fmt: skip
    assert any(is_masked) == (method in {"m_kto", "rejection"})
    if method in {"m_kto", "kto"}:
        assert {tree.labels["label"] for tree in trees} == {(1.0,), (0.0,)}
    assert (
        result.stages["train_0"].outputs["train_0/adapter"]
        != (result.stages["warm_up"].outputs["warm_up/adapter"])
    )


@pytest.mark.parametrize("localiser", ["{name: monte_carlo, n_rollouts: 4}", "{name: oracle}"])
def test_step_dpo_mends_the_policys_own_errors(finished, workplace, localiser):
    select = "select: {n_pairs: 2, loser_outcomes: [answered, turn_too_long, turn_limit]}"
    method = (
        f"{{name: step_dpo, {select}, localiser: {localiser}, n_collected: 6, n_rectified: 6,"
        " train: {learning_rate: 3.0e-3, num_train_epochs: 4, per_device_train_batch_size: 2}}"
    )
    output = workplace / f"step_dpo_{'oracle' in localiser}"
    overrides = [f"output={output}", f"method={method}", "n_rounds=1", "n_from_previous=0"]
    config = load_config(MathConfig, workplace / "run.yaml", overrides)
    result = run_math(config)
    assert [name for name in result.stages if name.endswith("_0")] == [
        *("collect_0", "mend_0", "select_0", "train_0")
    ]
    counts = result.stages["mend_0"].counts
    assert counts["paired"] >= len(read_trees(config.output / "select_0.jsonl")) > 0
    tokenizer = tiny_tokenizer()
    for tree in read_trees(config.output / "select_0.jsonl"):
        chosen, rejected = map(tree.path, (0, 1))
        shared = tokenizer.decode(tree.nodes[0].ids)
        assert shared.startswith("<|im_start|>user\n")
        for path in (chosen, rejected):
            leaf = [token for token, scored in zip(path.ids, path.scored, strict=True) if scored]
            assert leaf
            assert tokenizer.eos_token_id not in leaf
    lines = (config.output / "train_0" / "metrics.jsonl").read_text().splitlines()
    margins = [json.loads(line)["margin_nats"] for line in lines]
    assert margins[0] == pytest.approx(0.0, abs=1e-3)
    assert margins[-1] > 0.2
    assert run_math(config) == result


def test_oreo_trains_policy_and_values_and_searches_by_them(finished, workplace):
    objective = "{name: oreo, level: step, alpha: 0.01, value_learning_rate: 0.02}"
    train = "{learning_rate: 1.0e-3, num_train_epochs: 3, per_device_train_batch_size: 4}"
    method = f"{{name: oreo, objective: {objective}, train: {train}}}"
    search = "evaluate.search={name: beam, n_beams: 2, n_proposals: 2}"
    overrides = [f"output={workplace}/oreo", f"method={method}", search, "n_from_previous=0"]
    config = load_config(MathConfig, workplace / "run.yaml", overrides)
    result = run_math(config)
    trees = read_trees(config.output / "select_0.jsonl")
    assert {tree.labels["reward"] for tree in trees} == {(0.0,), (1.0,)}
    for tree in trees:
        assert sum(tree.steps[0]) == tree.path(0).n_scored
    # A trajectory cut off in its first turn has one step; those that called the tool have more.
    assert max(len(tree.steps[0]) for tree in trees) >= 2
    heads = [load_file(config.output / f"train_{number}/adapter/heads.safetensors")["value.weight"]
             for number in (0, 1)]  # fmt: skip
    # The second round goes on with the head of the first.
    assert heads[0].abs().max() > 0.01
    assert (heads[1] - heads[0]).abs().max() < heads[1].abs().max()
    assert result.stages["train_1"].outputs.keys() >= {"train_1/adapter"}
    assert {one.id for one in result.valued} == {one.id for one in result.after}
    assert [one.problem_id for one in result.guided] == ["t/e"]
    gains = measure_gains(result, config.evaluate.k)
    assert gains.values.at_end.n == len(result.after)
    assert gains.values.curve[-1].strategy == "guided search"
    assert render_summary(gains, result.stages) is not None
    assert "Value function" in write_report(config, result, gains).read_text()
    assert run_math(config) == result


def test_a_search_by_value_needs_a_value_function(finished, workplace):
    config, *_ = finished
    solve = load_config(
        SolveConfig,
        None,
        [
            f"output={workplace}/solved",
            f"policy={{base: {workplace}/model, adapter: {config.output}/train_1/adapter}}",
            "search.name=best_of_k",
        ],
    )
    source = workplace / "held_out.jsonl"
    with pytest.raises(ConfigError, match="has no value function"):
        solve_problems(solve, read_problems(source), source=source)


def test_a_judge_that_says_nothing_ends_the_run_with_what_was_counted(finished, workplace):
    method = "{name: step_dpo, localiser: {name: judge, max_new_tokens: 5}, n_collected: 4}"
    overrides = [f"output={workplace}/judged", f"method={method}", "n_rounds=1"]
    config = load_config(MathConfig, workplace / "run.yaml", [*overrides, "n_from_previous=0"])
    with pytest.raises(
        DataError, match=r"select_0: nothing to learn from \(wrong \d+, not_located"
    ):
        run_math(config)


def test_a_dry_run_counts_and_starts_nothing(workplace):
    folder = workplace / "dry"
    command = [*TRILLIUM, "math", "run", str(workplace / "run.yaml"), "--dry-run"]
    done = subprocess.run([*command, "--output", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "training: 4 problems (4 tiny)" in done.stdout
    assert "held out: 1 problems" in done.stdout
    assert "previous_1" not in done.stdout
    assert "-- path 0," in done.stdout
    assert not folder.exists()


def test_runs_that_cannot_be_are_refused_with_what_to_do(workplace):
    def load(*overrides):
        return load_config(
            MathConfig, workplace / "run.yaml", [f"output={workplace}/no", *overrides]
        )

    with pytest.raises(ConfigError, match=r"kto does not fit method m_dpo"):
        run_math(load("method.objective.name=kto"))
    with pytest.raises(ConfigError, match=r"n_from_previous = 8 leaves nothing"):
        load("n_from_previous=8")
    with pytest.raises(ConfigError, match=r"agent\.max_tokens=9000: is more than"):
        run_math(load("agent.max_tokens=9000"))
    with pytest.raises(ConfigError, match=r"problems\.train: 0 of 1 problems"):
        run_math(load(f"problems.train.source={workplace}/held_out.jsonl"))
    assert not (workplace / "no" / "report.html").exists()
