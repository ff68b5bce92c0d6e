import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback
from trillium.errors import BackendError, ConfigError, DataError
from trillium.objectives.configs import DPOConfig, KTOConfig, SimPOConfig
from trillium.scoring.reference import BaseReference, SnapshotReference
from trillium.training.align import AlignConfig, align
from trillium.training.callbacks import STOP_WINDOW
from trillium.training.config import TrainConfig


def configure(objective=None, **train):
    settings = {"per_device_train_batch_size": 4, "learning_rate": 1e-3, "save_steps": 4, **train}
    return AlignConfig(objective=objective or DPOConfig(), train=TrainConfig(**settings))


def test_a_finished_run_is_not_trained_again(pairs, policy, tmp_path):
    class Count(TrainerCallback):
        def __init__(self):
            self.steps = 0

        def on_step_end(self, *_, **__):
            self.steps += 1

    first, again = Count(), Count()
    # 16 trees in steps of 4, cut off in the middle of an epoch.
    config = configure(max_steps=6)
    model = policy(spread=0.0)
    done = align(config, pairs(16), model, BaseReference(model), tmp_path, callbacks=[first])
    before = (done.adapter / "adapter_model.safetensors").read_bytes()
    fresh = policy(spread=0.0)
    second = align(config, pairs(16), fresh, BaseReference(fresh), tmp_path, callbacks=[again])
    assert (first.steps, again.steps) == (6, 0)
    assert second == done
    assert (second.adapter / "adapter_model.safetensors").read_bytes() == before
    trained = dict(fresh.named_parameters())
    for name, tensor in load_file(done.adapter / "adapter_model.safetensors").items():
        assert torch.equal(tensor, trained[name.replace(".weight", ".default.weight")])


def test_when_the_memory_of_a_gpu_ends_the_run_says_what_to_lower_and_goes_on(
    pairs, policy, tmp_path
):
    class Fill(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == 2:
                raise torch.OutOfMemoryError("CUDA out of memory")

    config = configure(save_steps=1, micro_tokens=300)
    model = policy(spread=0.0)
    sentence = r"step 3: the GPU has no memory left for row batches of 300 tokens; lower train"
    with pytest.raises(BackendError, match=sentence):
        align(config, pairs(16), model, BaseReference(model), tmp_path, callbacks=[Fill()])
    fresh = policy(spread=0.0)
    result = align(config, pairs(16), fresh, BaseReference(fresh), tmp_path)
    assert [row["step"] for row in result.metrics] == [1, 2, 3, 4]


def test_other_trees_do_not_continue_an_old_checkpoint(pairs, policy, tmp_path, caplog):
    config = configure()
    for seed in (0, 1):
        model = policy(spread=0.0)
        result = align(config, pairs(8, seed=seed), model, BaseReference(model), tmp_path)
    assert "belongs to another configuration or other data" in caplog.text
    assert [row["step"] for row in result.metrics] == [1, 2]


@pytest.mark.parametrize("changed", ["base", "start"])
@pytest.mark.parametrize("objective", [SimPOConfig(), DPOConfig()], ids=lambda each: each.name)
def test_another_base_or_start_does_not_continue_an_old_checkpoint(
    objective, changed, pairs, policy, tmp_path, caplog
):
    def run(model, folder):
        reference = BaseReference(model) if objective.name == "dpo" else None
        result = align(configure(objective), pairs(8), model, reference, tmp_path / folder)
        return (result.adapter / "adapter_model.safetensors").read_bytes()

    def other():
        model = policy(spread=0.05 if changed == "start" else 0.0)
        if changed == "base":
            with torch.no_grad():
                model.get_input_embeddings().weight.mul_(1.1)
        return model

    run(policy(spread=0.0), "same")
    again = run(other(), "same")
    assert "belongs to another configuration or other data" in caplog.text
    assert again == run(other(), "fresh")


def test_dropout_makes_no_other_model_of_a_trained_adapter(pairs, policy, tmp_path):
    model = policy(dropout=0.3)
    result = align(configure(), pairs(8), model, SnapshotReference(model), tmp_path)
    assert result.n_steps == 2


@pytest.mark.parametrize(
    ("name", "n_kept", "sentence"),
    [
        ("metrics.jsonl", 0, "only up to step 0; starting from the beginning"),
        ("metrics.jsonl", 3, "only up to step 3; continuing from checkpoint-2"),
        ("evaluations.jsonl", 1, "only up to step 3; continuing from checkpoint-2"),
    ],
)
def test_lost_lines_of_the_record_are_said_and_trained_again(
    name, n_kept, sentence, pairs, policy, tmp_path, caplog
):
    config = configure(max_steps=4, save_steps=2, eval_steps=2)

    def run():
        model = policy(spread=0.0)
        reference = BaseReference(model)
        return align(config, pairs(16), model, reference, tmp_path, held_out=pairs(2, seed=9))

    first = run()
    lines = (tmp_path / name).read_text().splitlines(keepends=True)
    (tmp_path / name).write_text("".join(lines[:n_kept]))
    assert run() == first
    assert sentence in caplog.text


def test_a_large_margin_ends_the_run_and_stays_ended(pairs, policy, tmp_path):
    config = configure(num_train_epochs=50, learning_rate=2e-3, stop_margin=5.0)
    model = policy(spread=0.0)
    result = align(config, pairs(8), model, BaseReference(model), tmp_path)
    assert result.stopped_early
    assert STOP_WINDOW <= result.n_steps < 100
    margins = [row["margin_nats"] for row in result.metrics]
    assert sum(margins[-STOP_WINDOW:]) / STOP_WINDOW > 5.0
    assert sum(margins[-STOP_WINDOW - 1 : -1]) / STOP_WINDOW <= 5.0
    model = policy(spread=0.0)
    again = align(config, pairs(8), model, BaseReference(model), tmp_path)
    assert again == result


def test_saturated_pairs_are_warned_about_once(pairs, policy, tmp_path, caplog):
    model = policy(spread=0.0)
    config = configure(DPOConfig(beta=5.0), num_train_epochs=12, learning_rate=1e-2)
    align(config, pairs(8), model, BaseReference(model), tmp_path)
    warnings = [m for m in caplog.messages if "the mean reward margin is" in m]
    assert len(warnings) == 1


def test_a_full_disk_at_a_checkpoint_leaves_the_earlier_one_intact(pairs, policy, tmp_path, caplog):
    class FillDisk(TrainerCallback):
        """The optimizer file of checkpoint 4 lies on a device that is always full."""

        def on_step_end(self, args, state, control, **_):
            if state.global_step == 3:
                folder = Path(args.output_dir) / "checkpoint-4"
                folder.mkdir()
                (folder / "optimizer.pt").symlink_to("/dev/full")

    config = configure(save_steps=2)
    trees = pairs(24)
    model = policy(spread=0.0)
    with pytest.raises(BackendError, match="the disk or a quota is full") as caught:
        align(config, trees, model, BaseReference(model), tmp_path, callbacks=[FillDisk()])
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2"]
    caplog.clear()
    model = policy(spread=0.0)
    result = align(config, trees, model, BaseReference(model), tmp_path)
    assert result.n_steps == 6
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("objective", "train", "make", "message"),
    [
        (DPOConfig(), {}, "singles", "has 1 responses .objective dpo needs pairs"),
        (KTOConfig(), {}, "pairs", "has 2 responses .objective kto needs labelled rows"),
        (SimPOConfig(), {"stop_margin": 5.0}, "pairs", "train.stop_margin is set"),
        (DPOConfig(), {"eval_steps": 1}, "pairs", "train.eval_steps is set"),
        (DPOConfig(), {}, "none", "no tree is left to train on"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    objective, train, make, message, pairs, singles, policy, tmp_path
):
    trees = {"pairs": pairs, "singles": singles, "none": lambda _: []}[make](4)
    model = policy()
    with pytest.raises((ConfigError, DataError), match=message):
        align(configure(objective, **train), trees, model, BaseReference(model), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("objective", "sentence"),
    [
        (DPOConfig(), "held out: tree row-0: has 1 responses"),
        (KTOConfig(), "held out: 1 row .objective kto pairs each prompt with"),
    ],
)
def test_held_out_trees_that_do_not_fit_are_named(
    objective, sentence, pairs, singles, policy, tmp_path
):
    trees = pairs(4) if objective.name == "dpo" else singles(4)
    model, config = policy(), configure(objective)
    with pytest.raises(DataError, match=sentence):
        align(config, trees, model, BaseReference(model), tmp_path, held_out=singles(1))


def test_beta_must_be_positive():
    with pytest.raises(ValueError, match="greater than 0"):
        DPOConfig(beta=0.0)


def test_kto_trains_on_labelled_rows(singles, policy, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    model = policy(spread=0.0)
    config = configure(
        KTOConfig(), num_train_epochs=20, order="shuffle", per_device_train_batch_size=12
    )
    result = align(config, singles(12), model, BaseReference(model), tmp_path)
    first, last = result.metrics[0], result.metrics[-1]
    assert first["loss"] == pytest.approx(0.5, abs=1e-5)
    assert last["loss"] < 0.45
    assert last["rewards/chosen"] > last["rewards/rejected"]
    assert all(row["kl"] >= 0 for row in result.metrics)
