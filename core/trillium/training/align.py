"""`align`: from preference trees to a trained adapter, resumable at any moment.

Applications and `trillium train` call this one function. It owns a folder: checkpoints, the journal
of steps, and at the end `adapter/`. A second call with the same inputs does only what is missing.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from transformers import TrainerCallback, TrainerState

from trillium.files import hash_json, remove
from trillium.mismatch import pair_mismatched
from trillium.objectives.configs import DPOConfig, ObjectiveConfig
from trillium.objectives.table import needs_of
from trillium.progress import Progress
from trillium.scoring.layout import choose_layout
from trillium.scoring.reference import CachedReference, ReferenceProvider
from trillium.training.callbacks import (
    ShowProgress,
    StopOnMargin,
    WarnOnSaturation,
    is_past_margin,
)
from trillium.training.checkpoints import guard_disk, newest_checkpoint
from trillium.training.config import TrainConfig, training_arguments
from trillium.training.fit import check_fit
from trillium.training.journal import read_evaluations, read_metrics
from trillium.training.steps import Sample, StepCollator
from trillium.training.task import Task
from trillium.training.trainer import PrefTrainer
from trillium.trees import TokenTree

log = logging.getLogger(__name__)

# Tokens in memory at once. On a processor small batches are faster and lighter: no row is padded.
_MICRO_TOKENS = {"cpu": 512, "cuda": 16384}


class AlignConfig(BaseModel):
    """Choose the objective and how to optimise it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: ObjectiveConfig = Field(default=DPOConfig(), description="what to minimise")
    train: TrainConfig = Field(default=TrainConfig(), description="how to minimise it")


@dataclass(frozen=True)
class AlignResult:
    """Say where the adapter is and how the run went.

    `metrics` is the record of every step, `evaluations` that of the held-out trees; `stopped_early`
    says that `stop_margin` ended the run.
    """

    adapter: Path
    n_steps: int
    stopped_early: bool
    metrics: tuple[dict[str, int | float], ...]
    evaluations: tuple[dict[str, int | float], ...]


def align(
    config: AlignConfig,
    trees: Sequence[TokenTree],
    policy: nn.Module,
    reference: ReferenceProvider | None,
    output: Path,
    *,
    held_out: Sequence[TokenTree] = (),
    title: str = "align",
    callbacks: Sequence[TrainerCallback] = (),
) -> AlignResult:
    """Train `policy` on `trees` and save its adapter to `output/adapter`.

    Killed at any moment and called again it ends in the same bytes (CPU, one process). `held_out`
    is evaluated every `train.eval_steps`; `callbacks` see what transformers' callbacks see.
    Raises DataError or ConfigError for trees that do not fit the objective, BackendError for a loss
    that is not finite and for a full disk.
    """
    check_fit(config.objective, trees, config.train, n_held_out=len(held_out))
    task = _plan(config, trees, policy, reference, held_out)
    output.mkdir(parents=True, exist_ok=True)
    if isinstance(task.reference, CachedReference):
        device = next(policy.parameters()).device
        precompute_reference(task.reference, [*task.samples, *task.held_out], task.collator, device)
    watchers = [WarnOnSaturation(), *callbacks]
    if config.train.stop_margin is not None:
        watchers.append(StopOnMargin(config.train.stop_margin))
    bar = ShowProgress(title)
    try:
        return _train(config.train, policy, task, output, [bar, *watchers])
    finally:
        bar.close()


def precompute_reference(
    reference: CachedReference,
    samples: Sequence[Sample],
    collator: StepCollator,
    device: torch.device,
) -> None:
    """Ask the reference for every path once, longest first, so that steps find it in the cache."""
    trees = [sample.tree for sample in samples]
    mismatched = [sample.mismatched for sample in samples if sample.mismatched is not None]
    with Progress("reference", n_total=len(trees) + len(mismatched), unit="trees") as progress:
        for rows in chain(collator.batch_rows(trees), collator.batch_rows(mismatched)):
            reference.logps(rows.to(device))
            progress.advance(rows.n_trees)


def _plan(
    config: AlignConfig,
    trees: Sequence[TokenTree],
    policy: nn.Module,
    reference: ReferenceProvider | None,
    held_out: Sequence[TokenTree],
) -> Task:
    """Choose layout and row batches, and name the run by what it trains on."""
    device = next(policy.parameters()).device
    decision = choose_layout(policy, config.train.layout)
    if decision.sentence is not None:
        log.warning(decision.sentence)
    collator = StepCollator(
        decision.layout,
        _pad_id(policy),
        config.train.micro_tokens or _MICRO_TOKENS.get(device.type, _MICRO_TOKENS["cpu"]),
    )
    return Task(
        samples=_make_samples(config.objective, trees, config.train.seed),
        held_out=_make_samples(config.objective, held_out, config.train.seed),
        objective=config.objective,
        reference=reference if needs_of(config.objective).reference else None,
        collator=collator,
        order=config.train.order,
        identity=_identify(config, [*trees, *held_out], reference),
        keep_checkpoints=config.train.keep_checkpoints,
        starts_at_reference=reference is not None and reference.equals(policy),
    )


def _train(
    config: TrainConfig,
    policy: nn.Module,
    task: Task,
    output: Path,
    callbacks: Sequence[TrainerCallback],
) -> AlignResult:
    """Continue from the newest intact checkpoint, or start; then save what was trained."""
    use_cpu = next(policy.parameters()).device.type == "cpu"
    trainer = PrefTrainer(
        policy,
        training_arguments(config, output, use_cpu=use_cpu),
        task,
        callbacks=callbacks,
    )
    checkpoint = newest_checkpoint(
        output,
        task.identity,
        last_recorded=trainer.journal.last_complete_step(config.eval_steps),
    )
    state = _read_state(checkpoint)
    if trainer.is_world_process_zero():
        trainer.journal.rewind(state.global_step)
        remove(output / "adapter")
    trainer.accelerator.wait_for_everyone()
    if checkpoint is not None and _is_complete(state, config):
        trainer._load_from_checkpoint(str(checkpoint))
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        state = trainer.state
    adapter = output / "adapter"
    with guard_disk(adapter):
        trainer.save_model(str(adapter))
    return AlignResult(
        adapter=adapter,
        n_steps=state.global_step,
        stopped_early=state.global_step < state.max_steps,
        metrics=tuple(read_metrics(output)),
        evaluations=tuple(read_evaluations(output)),
    )


def _read_state(checkpoint: Path | None) -> TrainerState:
    if checkpoint is None:
        return TrainerState()
    state: TrainerState = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return state


def _is_complete(state: TrainerState, config: TrainConfig) -> bool:
    """Tell whether no step is left: the Trainer itself would always take one more."""
    if state.global_step >= state.max_steps:
        return True
    return config.stop_margin is not None and is_past_margin(state.log_history, config.stop_margin)


def _make_samples(
    objective: ObjectiveConfig, trees: Sequence[TokenTree], seed: int
) -> list[Sample]:
    if not needs_of(objective).mismatched or not trees:
        return [Sample(tree) for tree in trees]
    longest = max(tree.n_tokens for tree in trees)
    mismatched = pair_mismatched(trees, seed=seed, max_length=longest)
    return [Sample(tree, other) for tree, other in zip(trees, mismatched, strict=True)]


def _identify(
    config: AlignConfig, trees: Sequence[TokenTree], reference: ReferenceProvider | None
) -> str:
    """Name what is trained on what, and how; anything else must not continue its checkpoints."""
    return hash_json(
        {
            "config": config.model_dump(mode="json"),
            "trees": [
                [
                    *(tree.path(index).digest for index in range(tree.n_paths)),
                    {name: list(values) for name, values in tree.labels.items()},
                    dict(tree.columns),
                ]
                for tree in trees
            ],
            "reference": None if reference is None else reference.identity,
        }
    )


def _pad_id(policy: nn.Module) -> int:
    """Return a token to fill rows with; it is attended by nothing, so any token will do."""
    config = getattr(policy, "config", None)
    pad_id = getattr(config, "pad_token_id", None)
    return pad_id if isinstance(pad_id, int) else 0
