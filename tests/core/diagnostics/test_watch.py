import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from trillium.diagnostics import watch
from trillium.diagnostics.samples import draw, prompts_of, score_samples
from trillium.diagnostics.watch import LOOKS, StopOnOveroptimisation, is_past_optimum
from trillium.errors import ConfigError
from trillium.policies.adapters import add_adapter
from trillium.policies.config import LoraSettings
from trillium.policies.tiny import tiny_policy
from trillium.scoring.reference import BaseReference
from trillium.training.align import AlignConfig, align
from trillium.training.config import TrainConfig
from trillium.trees import TokenPath, TokenTree


def make_policy() -> PeftModel:
    return add_adapter(tiny_policy(), LoraSettings(r=4, alpha=8), base_name="tiny", seed=0)


def make_pairs(n: int) -> list[TokenTree]:
    generator = torch.Generator().manual_seed(n)
    trees = []
    for index in range(n):
        ids = tuple(torch.randint(4, 260, (14,), generator=generator).tolist())
        paths = [
            TokenPath(ids[:5] + reply, (False,) * 5 + (True,) * len(reply))
            for reply in (ids[5:9], ids[9:])
        ]
        trees.append(TokenTree.from_paths(f"pair-{index}", paths))
    return trees


def train(output: Path, **options: object) -> bool:
    policy = make_policy()
    settings = {"learning_rate": 0.01, "max_steps": 12, "save_steps": 3} | options
    config = AlignConfig(train=TrainConfig.model_validate(settings))
    result = align(
        config, make_pairs(8), policy, BaseReference(policy), output, held_out=make_pairs(3)
    )
    return result.stopped_early


def test_a_run_that_shows_the_sign_stops_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The rule is tested by value elsewhere; a tiny model gives no entropy that turns on command.
    monkeypatch.setattr(watch, "is_overoptimised", lambda name, entropies, masses: len(masses) > 2)

    assert train(tmp_path / "run", overoptimisation_steps=2)

    looks = [json.loads(line) for line in (tmp_path / "run" / LOOKS).read_text().splitlines()]
    assert [look["step"] for look in looks] == [0, 2, 4]
    assert all(0 < look[watch.MASS] <= 1 and look[watch.ENTROPY] > 0 for look in looks)
    # Started again it knows that it was complete, and takes no further step.
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    assert train(tmp_path / "run", overoptimisation_steps=2)
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


def test_looking_changes_no_bit_of_training_and_a_resumed_run_sees_the_same(tmp_path: Path) -> None:
    assert not train(tmp_path / "plain")
    assert not train(tmp_path / "watched", overoptimisation_steps=2)
    plain, watched = tmp_path / "plain", tmp_path / "watched"
    weights = "adapter/adapter_model.safetensors"
    assert (plain / weights).read_bytes() == (watched / weights).read_bytes()

    # What a kill after step 9 leaves behind.
    looks = (watched / LOOKS).read_bytes()
    shutil.rmtree(watched / "adapter")
    shutil.rmtree(watched / "checkpoint-12")
    train(watched, overoptimisation_steps=2)
    assert (watched / LOOKS).read_bytes() == looks
    assert (plain / weights).read_bytes() == (watched / weights).read_bytes()


def test_a_look_is_the_entropy_of_greedy_replies() -> None:
    policy, held_out = make_policy(), make_pairs(3)
    look = StopOnOveroptimisation(policy, held_out, objective="dpo", steps=1).look()

    prompts = prompts_of(held_out, 16)
    replies = draw(policy, prompts, max_new_tokens=watch.MAX_NEW_TOKENS, seed=None)
    entropies, masses = [], []
    for prompt, reply in zip(prompts, replies, strict=True):
        logits = policy(input_ids=torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == list(reply)
        top = logits.double().softmax(-1).topk(10).values
        entropies += (-(top * top.log2()).sum(-1)).tolist()
        masses += top.sum(-1).tolist()
    assert look[watch.ENTROPY] == pytest.approx(sum(entropies) / len(entropies), rel=1e-5)
    assert look[watch.MASS] == pytest.approx(sum(masses) / len(masses), rel=1e-5)


def test_history_without_looks_is_no_sign() -> None:
    assert not is_past_optimum([{"step": 1, "loss": 0.5}] * 9, "dpo")


def test_replies_of_different_prompts_do_not_depend_on_padding() -> None:
    policy = make_policy()
    prompts = [(5, 6, 7), (8, 9, 10, 11, 12, 13, 14)]
    together = draw(policy, prompts, max_new_tokens=8, seed=None)
    alone = [draw(policy, [one], max_new_tokens=8, seed=None)[0] for one in prompts]
    assert together == alone


def test_sampling_leaves_the_global_random_state_alone_and_repeats() -> None:
    policy = make_policy()
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    drawn = draw(policy, [(5, 6, 7)], max_new_tokens=6, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert drawn == draw(policy, [(5, 6, 7)], max_new_tokens=6, seed=1)
    (sample,) = score_samples(policy, [(5, 6, 7)], drawn)
    logits = policy(input_ids=torch.tensor([(5, 6, 7) + drawn[0]])).logits[0, 2:-1]
    logps = logits.log_softmax(-1).gather(-1, torch.tensor(drawn[0])[:, None])
    assert sample.logp == pytest.approx(logps.sum().item(), rel=1e-5)


def test_without_held_out_prompts_the_option_is_refused(tmp_path: Path) -> None:
    policy = make_policy()
    config = AlignConfig(train=TrainConfig(overoptimisation_steps=2, max_steps=2))
    with pytest.raises(ConfigError, match=r"give data\.held_out, or remove"):
        align(config, make_pairs(4), policy, BaseReference(policy), tmp_path)
