"""`align`: from preference trees to a trained adapter, resumable at any moment.

Applications and `trillium train` call this one function. It owns a folder: checkpoints, the journal
of steps, and at the end `adapter/`. A second call with the same inputs does only what is missing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from accelerate import PartialState
from torch import nn
from transformers import TrainerCallback, TrainerState, TrainingArguments

from trillium.deployment.provenance import record_provenance, warn_of
from trillium.diagnostics.watch import StopOnOveroptimisation, is_past_optimum
from trillium.errors import BackendError
from trillium.files import hash_json, hash_path, remove
from trillium.progress import Progress
from trillium.scoring.reference import CachedReference, ReferenceProvider
from trillium.training.callbacks import (
    ShowProgress,
    StopOnMargin,
    WarnOnSaturation,
    is_past_margin,
)
from trillium.training.checkpoints import guard_disk, newest_checkpoint
from trillium.training.config import AlignConfig, TrainConfig, training_arguments
from trillium.training.fit import check_fit
from trillium.training.heads import HEADS_FILE, attached, build_heads, load_heads
from trillium.training.inputs import reads_cache
from trillium.training.journal import read_evaluations, read_metrics
from trillium.training.processes import ALONE, Processes
from trillium.training.sharding import is_sharded
from trillium.training.steps import Sample, StepCollator
from trillium.training.task import Task, plan_task
from trillium.training.trainer import PrefTrainer
from trillium.trees import TokenTree


@dataclass(frozen=True)
class AlignResult:
    """Say where the adapter is and how the run went.

    `metrics` is the record of every step, `evaluations` that of the held-out trees; `stopped_early`
    says that `stop_margin` or `overoptimisation_steps` ended the run.
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
    heads_from: Path | None = None,
    base: str | None = None,
) -> AlignResult:
    """Train `policy` on `trees` and save its adapter to `output/adapter`, heads beside it.

    Killed at any moment and called again it ends in the same bytes (CPU, one process). `held_out`
    is evaluated every `train.eval_steps`; `callbacks` see what transformers' callbacks see. Heads
    go on from those in the folder `heads_from`, where it is given. `base` names the base's weights
    where the caller knows their name; without it they are hashed, unless a reference names them.
    Raises DataError or ConfigError for trees that do not fit the objective, BackendError for a loss
    that is not finite and for a full disk.
    """
    parts = {"training": trees, **({"held out": held_out} if held_out else {})}
    for where, part in parts.items():
        check_fit(config.objective, part, config.train, n_held_out=len(held_out), where=where)
    device = next(policy.parameters()).device
    output.mkdir(parents=True, exist_ok=True)
    task, train = plan_task(config, trees, policy, reference, held_out, base)
    arguments = training_arguments(train, output, use_cpu=device.type == "cpu")
    task = _name_batches(task, train, arguments)
    if isinstance(task.reference, CachedReference) and reads_cache(config.objective):
        samples = [*task.samples, *task.held_out]
        # A model that is spread computes nothing without all processes.
        share = ALONE if is_sharded(policy) else _processes(arguments)
        with _explain_memory(task.collator, lambda: "before the first step"):
            precompute_reference(task.reference, samples, task.collator, device, share)
        PartialState().wait_for_everyone()
    watchers = [*callbacks]
    if config.objective.saturates:
        watchers.append(WarnOnSaturation(config.objective))
    if config.train.stop_margin is not None:
        watchers.append(StopOnMargin(config.train.stop_margin))
    if config.train.overoptimisation_steps is not None:
        watchers.append(
            StopOnOveroptimisation(
                policy,
                held_out,
                objective=config.objective.name,
                steps=config.train.overoptimisation_steps,
            )
        )
    bar = ShowProgress(title)
    try:
        heads = build_heads(config.objective, policy)
        if heads_from is not None:
            load_heads(nn.ModuleDict(heads), heads_from)
            start = hash_path(heads_from / HEADS_FILE)
            task = replace(task, identity=hash_json([task.identity, start]))
        with attached(policy, heads):
            return _train(train, arguments, policy, task, [bar, *watchers])
    finally:
        bar.close()


def precompute_reference(
    reference: CachedReference,
    samples: Sequence[Sample],
    collator: StepCollator,
    device: torch.device,
    processes: Processes = ALONE,
) -> None:
    """Ask the reference for every path once, longest first, so that steps find it in the cache.

    Several processes deal the row batches out among them. Where they have no disk in common, or
    differ in memory and so in batches, each computes in its steps what it does not find.
    """
    trees = [sample.tree for sample in samples]
    mismatched = [sample.mismatched for sample in samples if sample.mismatched is not None]
    batches = chain(collator.batch_rows(trees), collator.batch_rows(mismatched))
    with Progress("reference", n_total=len(trees) + len(mismatched), unit="trees") as progress:
        for number, rows in enumerate(batches):
            if number % processes.n == processes.index:
                reference.logps(rows.to(device))
            progress.advance(rows.n_trees)


def _processes(arguments: TrainingArguments) -> Processes:
    return Processes(arguments.world_size, arguments.process_index)


def _name_batches(task: Task, config: TrainConfig, arguments: TrainingArguments) -> Task:
    """Name the optimizer batch as well: its size depends on how many processes there are."""
    if arguments.world_size == 1:
        return task
    n_trees = config.trees_per_step(arguments.world_size)
    return replace(task, identity=hash_json([task.identity, {"trees_per_step": n_trees}]))


def _train(
    config: TrainConfig,
    arguments: TrainingArguments,
    policy: nn.Module,
    task: Task,
    callbacks: Sequence[TrainerCallback],
) -> AlignResult:
    """Continue from the newest intact checkpoint, or start; then save what was trained."""
    output = Path(str(arguments.output_dir))
    trainer = PrefTrainer(policy, arguments, task, callbacks=callbacks)
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
    if checkpoint is not None and _is_complete(state, config, task.objective.name):
        trainer._load_from_checkpoint(str(checkpoint))
    else:
        with _explain_memory(task.collator, lambda: f"step {trainer.state.global_step + 1}"):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        state = trainer.state
    adapter = output / "adapter"
    with guard_disk(adapter):
        trainer.save_model(str(adapter))
    if trainer.is_world_process_zero():
        _record(adapter, policy, config, task)
    return AlignResult(
        adapter=adapter,
        n_steps=state.global_step,
        stopped_early=state.global_step < state.max_steps,
        metrics=tuple(read_metrics(output)),
        evaluations=tuple(read_evaluations(output)),
    )


@contextmanager
def _explain_memory(collator: StepCollator, where: Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BackendError(
            f"{where()}: the GPU has no memory left for row batches of {collator.micro_tokens} "
            "tokens; lower train.micro_tokens, set train.gradient_checkpointing=true or "
            "policy.quantisation=nf4; the last checkpoint is intact"
        ) from error


def _record(adapter: Path, policy: nn.Module, config: TrainConfig, task: Task) -> None:
    """Write what the adapter was trained on beside it, and say what servers would refuse."""
    problems = record_provenance(
        adapter,
        policy,
        method={
            "objective": task.objective.model_dump(mode="json"),
            "train": config.model_dump(mode="json"),
        },
        reference=task.reference.identity if task.reference else None,
        identity=task.identity,
        n_examples=len(task.samples),
    )
    warn_of(adapter, problems)


def _read_state(checkpoint: Path | None) -> TrainerState:
    if checkpoint is None:
        return TrainerState()
    state: TrainerState = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return state


def _is_complete(state: TrainerState, config: TrainConfig, objective: str) -> bool:
    """Tell whether no step is left: the Trainer itself would always take one more."""
    if state.global_step >= state.max_steps:
        return True
    if config.overoptimisation_steps is not None and is_past_optimum(state.log_history, objective):
        return True
    return config.stop_margin is not None and is_past_margin(state.log_history, config.stop_margin)
