"""The driver of rounds: references that move, stages that are skipped, kills without a trace."""

import gc
import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trillium.errors import ConfigError, DataError
from trillium.generation.in_process import TransformersGenerator
from trillium.generation.interface import SamplingConfig
from trillium.manifest import read_manifest
from trillium.objectives.configs import DPOConfig
from trillium.policies.adapters import adapter_digest, adapter_parameters
from trillium.policies.tiny import tiny_tokenizer
from trillium.training.config import TrainConfig
from trillium.training.recipes.recipe import Ema, Evaluation, Recipe, SameTrees
from trillium.training.recipes.self_play import WinProbability, sppo
from trillium.training.round_rows import Prompt
from trillium.training.rounds import RoundsConfig, derive_seed, run_rounds

# Every training ends in a full collection, most of whose time goes into the imported libraries.
gc.freeze()

SCRIPT = Path(__file__).with_name("killed_rounds.py")
TRAIN = TrainConfig(per_device_train_batch_size=4, learning_rate=2e-3, num_train_epochs=2)
CONFIG = RoundsConfig(train=TRAIN, seed=3)


def entries(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def first_losses(rounds) -> list[float]:
    return [each.metrics[0]["loss"] for each in rounds]


def test_a_snapshot_reference_is_where_each_round_starts(pairs, policy, tmp_path):
    """Policy equal to reference costs ln 2 before the first step of every round, not of one."""
    recipe = Recipe("snapshots", 3, SameTrees(tuple(pairs(8))), DPOConfig())
    rounds = run_rounds(recipe, CONFIG, policy(), tmp_path)
    assert first_losses(rounds) == pytest.approx([math.log(2)] * 3, abs=1e-5)
    for before, after in pairwise(rounds):
        assert after.metrics[0]["rewards/margins"] == pytest.approx(0.0, abs=1e-5)
        assert before.metrics[-1]["loss"] < math.log(2)


def test_the_base_as_reference_remembers_what_earlier_rounds_gained(pairs, policy, tmp_path):
    recipe = Recipe("fixed", 2, SameTrees(tuple(pairs(8))), DPOConfig(), reference="base")
    rounds = run_rounds(recipe, CONFIG, policy(spread=0.0), tmp_path)
    assert rounds[0].metrics[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert rounds[1].metrics[0]["loss"] < rounds[0].metrics[0]["loss"] - 0.01


def test_an_ema_reference_is_the_mean_that_its_decay_says(pairs, policy, tmp_path):
    """reference_2 = d (d start + (1-d) policy_1) + (1-d) policy_2, entry by entry."""
    decay, source = 0.75, SameTrees(tuple(pairs(8)))
    recipe = Recipe("ema", 2, source, DPOConfig(), reference=Ema(decay))
    rounds = run_rounds(recipe, CONFIG, policy(), tmp_path)
    start, first, second = (
        entries(folder) for folder in (tmp_path / "start", *(each.policy for each in rounds))
    )
    for key, found in entries(tmp_path / "round_1" / "reference").items():
        expected = decay * (decay * start[key] + (1 - decay) * first[key])
        torch.testing.assert_close(found, expected + (1 - decay) * second[key])
    # The second round is judged against a reference that lags behind its start.
    assert rounds[1].metrics[0]["loss"] < math.log(2) - 1e-3


def test_an_ema_without_memory_is_a_snapshot(pairs, policy, tmp_path):
    source = SameTrees(tuple(pairs(8)))
    adapters = []
    for name, reference in (("ema", Ema(0.0)), ("snapshot", "snapshot")):
        recipe = Recipe(name, 2, source, DPOConfig(), reference=reference)
        rounds = run_rounds(recipe, CONFIG, policy(), tmp_path / name)
        adapters.append((rounds[1].policy / "adapter_model.safetensors").read_bytes())
    assert adapters[0] == adapters[1]
    with pytest.raises(ConfigError, match=r"decay = 1.5: is no share"):
        Ema(1.5)


def test_finished_rounds_are_read_and_a_changed_measure_measures_again(pairs, policy, tmp_path):
    calls: list[str] = []

    def measure(model) -> dict[str, float]:
        calls.append(adapter_digest(model))
        return {"norm": sum(p.square().sum().item() for p in adapter_parameters(model).values())}

    recipe = Recipe("twice", 2, SameTrees(tuple(pairs(8))), DPOConfig())
    first = run_rounds(recipe, CONFIG, policy(), tmp_path, evaluation=Evaluation("norm 1", measure))
    fresh = policy()
    again = run_rounds(recipe, CONFIG, fresh, tmp_path, evaluation=Evaluation("norm 1", measure))
    assert (again, len(calls)) == (first, 2)
    saved = entries(first[-1].policy)
    assert all(torch.equal(saved[key], p) for key, p in adapter_parameters(fresh).items())
    run_rounds(recipe, CONFIG, policy(), tmp_path, evaluation=Evaluation("norm 2", measure))
    assert calls == calls[:2] * 2
    assert first[0].evaluation["norm"] != first[1].evaluation["norm"]


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [("aab", "recipe sppo: 2 prompts are called a"), ("", "recipe sppo: no prompt to answer")],
)
def test_prompts_are_checked_before_anything_is_sampled(ids, sentence, policy, tmp_path):
    prompts = tuple(Prompt(id, (5, 6 + place)) for place, id in enumerate(ids))
    model = policy()
    generator = TransformersGenerator(model, tiny_tokenizer(), max_rows=8)
    judge = WinProbability("even", lambda *_: 0.5)
    with pytest.raises(DataError, match=sentence):
        run_rounds(
            sppo(prompts, SamplingConfig(n_samples=2), judge, n_rounds=1),
            CONFIG,
            model,
            tmp_path,
            generator=generator,
        )
    assert not list(tmp_path.iterdir())


def test_a_longer_recipe_continues_a_shorter_one(pairs, policy, tmp_path):
    source = SameTrees(tuple(pairs(8)))
    short = run_rounds(Recipe("n", 1, source, DPOConfig()), CONFIG, policy(), tmp_path)
    stamp = (short[0].trained / "adapter_model.safetensors").stat().st_mtime_ns
    long = run_rounds(Recipe("n", 2, source, DPOConfig()), CONFIG, policy(), tmp_path)
    assert long[0] == short[0]
    assert (long[0].trained / "adapter_model.safetensors").stat().st_mtime_ns == stamp
    assert entries(long[1].policy).keys() == entries(long[0].policy).keys()


@pytest.mark.slow
def test_rounds_that_are_killed_again_and_again_end_in_the_same_bytes(tmp_path):
    """Everything but the clock is equal: samples, scores, trees, metrics, adapters, references."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    paths = os.pathsep.join([str(SCRIPT.parent), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(whole), str(broken)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5
    files = [
        {path.relative_to(folder) for path in folder.rglob("*") if path.suffix != ".part"}
        for folder in (whole, broken)
    ]
    assert files[0] == files[1]
    clocks = {"run.json", "timing.jsonl", "environment.json", ".lock"}
    compared = [name for name in files[0] if (whole / name).is_file() and name.name not in clocks]
    assert len({name.name for name in compared}) >= 6
    for name in compared:
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
    expected, found = (read_manifest(folder) for folder in (whole, broken))
    assert len(found.stages) == 13
    for name, record in expected.stages.items():
        assert found.stages[name].input_hash == record.input_hash
        assert found.stages[name].counts == record.counts
    assert not found.attempts


def test_seeds_differ_by_name_and_repeat() -> None:
    seeds = [derive_seed(0, "train", number) for number in range(3)]
    assert len({*seeds, derive_seed(1, "train", 0), derive_seed(0, "generate", 0)}) == 5
    assert seeds == [derive_seed(0, "train", number) for number in range(3)]
    assert all(0 <= seed < 2**31 for seed in seeds)
