"""A trained step against the pure functions, fed from plain forward passes of each path.

Loss and gradients of the trainer must be those of pure_steps.py, under float32 weights to 1e-5 and
under float64 weights to 1e-6.
"""

import pytest
import torch
from torch import nn
from trillium.objectives.configs import SimPOConfig
from trillium.objectives.table import OBJECTIVES, needs_of
from trillium.scoring.reference import BaseReference
from trillium.scoring.scores import Scores, count_scored
from trillium.training.computed import MAKERS, Passes, sum_steps
from trillium.training.config import TrainConfig, training_arguments
from trillium.training.heads import attach, build_heads
from trillium.training.steps import Sample, StepCollator
from trillium.training.task import Task
from trillium.training.trainer import PrefTrainer
from trillium.trees import TokenPath, TokenTree

from .pure_steps import CASES, Step


def prepare(policy, objective, dtype):
    """Return a policy that differs from its base, with heads of which no two entries agree."""
    model = policy()
    heads = build_heads(objective, model)
    attach(model, heads)
    with torch.no_grad():
        for index, entry in enumerate(p for head in heads.values() for p in head.parameters()):
            noise = torch.Generator().manual_seed(index)
            entry.add_(0.1 * torch.randn(entry.shape, generator=noise))
    return nn.Module.to(model, dtype)


def trained_step(model, objective, trees, output):
    task = Task(
        samples=[Sample(each) for each in trees],
        held_out=(),
        objective=objective,
        reference=BaseReference(model),
        collator=StepCollator("shared", 3, 120, n_counted=4),
        order="sequential",
        identity="test",
        keep_checkpoints=1,
        starts_at_reference=False,
    )
    config = TrainConfig(order="sequential", per_device_train_batch_size=len(trees))
    trainer = PrefTrainer(model, training_arguments(config, output, use_cpu=True), task)
    (batch,), n_trees = trainer.get_batch_samples(
        iter(trainer.get_train_dataloader()), 1, trainer.args.device
    )
    return trainer.training_step(model, batch, n_trees)


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def case_id(value):
    return str(value) if hasattr(value, "name") else ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("objective", "expected"), CASES, ids=case_id)
def test_a_trained_step_is_the_pure_function(
    objective, expected, dtype, trees_for, policy, tmp_path
):
    trees = trees_for(objective, 6)
    model = prepare(policy, objective, dtype)
    loss = trained_step(model, objective, trees, tmp_path)
    found = gradients(model)
    model.zero_grad()
    goal = expected(Step(model, trees), objective).mean()
    goal.backward()
    # Under float64 weights the model's norms still round to float32, as does the sum of losses.
    tolerance = 1e-5 if dtype == torch.float32 else 1e-6
    torch.testing.assert_close(loss, goal.detach().float(), rtol=1e-5, atol=1e-6)
    gap = (found - gradients(model)).norm() / found.norm()
    assert gap < tolerance


def test_every_computed_argument_has_a_maker_and_every_maker_an_argument():
    declared = {name for row in OBJECTIVES.values() for name in row.needs.computed}
    assert declared == set(MAKERS)


def test_the_sums_of_long_steps_are_rounded_once(policy):
    size = 6000
    ids = tuple(5 + index % 200 for index in range(size + 1))
    path = TokenPath(ids, (False,) + (True,) * size)
    tree = TokenTree.from_paths("long", [path], steps=((size - 10, 10),))
    rows = next(StepCollator("shared", 3, 10_000).batch_rows([tree]))
    values = -6 * torch.rand(len(rows.target), generator=torch.Generator().manual_seed(0))
    scores = Scores(values.sum()[None], count_scored(rows), {"logp": values})
    needs = needs_of(SimPOConfig())
    passes = Passes(SimPOConfig(), needs, policy(), rows, scores, None, None, None, ())
    ordered = values[rows.entry_slot].double()
    expected = torch.stack([ordered[:-10].sum(), ordered[-10:].sum()]).float()
    assert torch.equal(sum_steps(passes, values), expected[None])
