"""`PrefTrainer`: transformers' Trainer, with optimizer steps over token trees.

One optimizer step is one batch of trees. How it is cut (row batches, accumulation, processes)
changes memory and speed, never gradients: every loss is divided by the trees of the whole step.
Gradients are summed over processes here, so scoring may call any part of the model.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import cast

import torch
from accelerate.utils import gather_object
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from trillium.errors import BackendError, ConfigError
from trillium.objectives.evaluate import evaluate
from trillium.objectives.table import needs_of
from trillium.policies.adapters import save_adapter
from trillium.scoring.layout import evaluating
from trillium.training.checkpoints import (
    SEAL,
    guard_disk,
    prune_checkpoints,
    seal_checkpoint,
)
from trillium.training.heads import head_group, heads_of, load_heads, save_heads
from trillium.training.inputs import gather
from trillium.training.journal import Journal
from trillium.training.metrics import Meter, average, measure
from trillium.training.processes import average_gradients, refuse_sharding
from trillium.training.reference_checks import (
    base_dtype,
    check_starts_at_reference,
    mismatched_logratios,
    starting_logps,
)
from trillium.training.sampler import Split, StepLoader, StepSampler
from trillium.training.sharding import even_out, is_sharded
from trillium.training.steps import Sample, StepBatch
from trillium.training.task import StepTotals, Task
from trillium.tree_batch import TreeBatch


class PrefTrainer(Trainer):
    """Train a policy on preferences; everything not said here is transformers' Trainer."""

    def __init__(
        self,
        policy: nn.Module,
        arguments: TrainingArguments,
        task: Task,
        *,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        """Prepare to train.

        Raises ConfigError when a reference is needed and there is none, and where the launcher
        asks for spread weights outside `joined_processes`.
        """
        refuse_sharding()
        self.policy = policy
        self.task = task
        self.needs = needs_of(task.objective)
        if self.needs.reference and task.reference is None:
            raise ConfigError(
                f"objective {task.objective.name} compares with a reference and reference is none; "
                "set reference to base, or choose an objective that needs none"
            )
        super().__init__(
            model=policy,
            args=arguments,
            train_dataset=cast(Dataset[Sample], task.samples),
            eval_dataset=cast(Dataset[Sample], task.held_out),
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)
        # As for weights that transformers spreads: DistributedDataParallel would refuse them.
        self.is_distributed_loading_by_transformers = is_sharded(policy)
        # What a process computes while others have more to do, where they wait for one another.
        shortest = min(task.samples, key=lambda sample: sample.tree.n_tokens)
        self._spare = task.collator([shortest] if is_sharded(policy) else [])
        if arguments.activation_checkpointing and isinstance(policy, PeftModel):
            # Without a gradient at the input, checkpointed blocks of frozen weights give none.
            policy.enable_input_require_grads()
        self.journal = Journal(Path(str(arguments.output_dir)))
        self._meter = Meter()
        self._totals = StepTotals(0, 0, (), None)
        self._step_trees: tuple[str, ...] = ()
        self._step_started = time.perf_counter()
        self._has_begun = False

    def get_train_dataloader(self) -> DataLoader[Sample]:
        """Return a loader of `StepBatch`es that deals whole optimizer batches to processes."""
        split = Split(
            self.args.per_device_train_batch_size,
            self.args.gradient_accumulation_steps,
            self.args.world_size,
            self.args.process_index,
        )
        lengths = [sample.tree.n_tokens for sample in self.task.samples]
        sampler = StepSampler(lengths, split, order=self.task.order, seed=self.args.seed)
        samples = cast(Dataset[Sample], self.task.samples)
        return StepLoader(samples, batch_sampler=sampler, collate_fn=self.task.collator)

    def get_batch_samples(
        self, epoch_iterator: Iterator[StepBatch], num_batches: int, device: torch.device
    ) -> tuple[list[StepBatch], int]:
        """Collect one optimizer step and count what its losses are divided by."""
        self._step_started = time.perf_counter()
        batches = list(islice(epoch_iterator, num_batches))
        self._step_trees = tuple(
            name for batch in batches for rows in batch.rows for name in rows.tree_ids
        )
        self._totals = self._count(batches)
        return batches, self._totals.n_trees

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimizer that the arguments name; heads have a weight decay of their own."""
        if self.optimizer is not None:
            return super().create_optimizer(model)
        optimizer = super().create_optimizer(model)
        heads = heads_of(self.policy)
        own = set(heads.parameters())
        for group in optimizer.param_groups:
            group["params"] = [each for each in group["params"] if each not in own]
        if own:
            optimizer.add_param_group(head_group(self.task.objective, heads))
        return optimizer

    # The Trainer passes on what the loader above yields: a StepBatch, never a dictionary.
    def training_step(  # type: ignore[override]
        self,
        model: nn.Module,
        inputs: StepBatch,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Float[Tensor, ""]:
        """Add the gradients of one micro step; returns its share of the step's mean loss."""
        # Whoever leaves training goes back to it; telling every module again costs milliseconds.
        if not (self._has_begun and model.training):
            model.train()
            self._has_begun = True
        total = torch.zeros((), device=self.args.device)
        for rows, counts in even_out(inputs.rows, self._spare.rows):
            losses = self._losses(rows.to(self.args.device), self._totals, counts=counts)
            # Gradients and losses are averaged over processes, and each holds a part of the sum.
            share = losses.sum() * (counts * self.args.world_size / self._totals.n_trees)
            self.accelerator.backward(share)
            total += share.detach()
        if self.accelerator.sync_gradients:
            average_gradients(self.policy.parameters())
        return total

    def evaluate(
        self,
        eval_dataset: Dataset[Sample] | dict[str, Dataset[Sample]] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Return mean loss and measures over the task's held-out trees, and record them."""
        batch = self.task.collator(self.task.held_out)
        totals = self._count([batch], over_processes=False)
        step_meter, self._meter = self._meter, Meter()
        with torch.no_grad(), evaluating(self.policy):
            for rows in batch.rows:
                losses = self._losses(rows.to(self.args.device), totals)
                self._meter.add({"loss": losses})
        metrics = {f"{metric_key_prefix}_{k}": v for k, v in average([self._meter.take()]).items()}
        self._meter = step_meter
        if self.is_in_train and self.is_world_process_zero():
            self.journal.append_evaluation(self.state.global_step, metrics)
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Complete the record of a step with its measures and write it to the journal."""
        if "grad_norm" not in logs:
            super().log(logs, start_time)
            return
        measures = average(gather_object([self._meter.take()]))
        seconds = time.perf_counter() - self._step_started
        logs |= {"n_tokens": float(self._totals.n_tokens), **measures}
        if self._totals.kl is not None:
            logs["kl"] = self._totals.kl.item()
        if self.is_world_process_zero():
            timing = {"seconds": seconds, "tokens_per_s": self._totals.n_tokens / seconds}
            self.journal.append(self.state.global_step, logs, timing)
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: object) -> int:
        """Return 0: shared prefixes make the usual estimate from token counts wrong."""
        return 0

    def _losses(
        self, rows: TreeBatch, totals: StepTotals, *, counts: bool = True
    ) -> Float[Tensor, " tree"]:
        """Return one loss per tree from exactly the forwards that the objective declares.

        Its measures are recorded where it `counts`.
        """
        task = self.task
        found = gather(
            task.objective,
            self.policy,
            task.reference,
            rows,
            tokens_per_path=totals.tokens_per_path,
        )
        fixed = found.reference_logps
        if fixed is not None and self.state.global_step == 0 and task.starts_at_reference:
            logps = starting_logps(self.policy, rows, found.scores)
            check_starts_at_reference(logps, fixed, found.scores.lengths, base_dtype(self.policy))
        losses = evaluate(
            task.objective,
            found.policy,
            found.reference,
            labels=rows.labels,
            columns=rows.columns,
            kl=totals.kl,
            tokens_per_pair=totals.tokens_per_path[0],
            computed=found.computed,
        )
        self._check_finite(losses, rows)
        if counts:
            self._meter.add(measure(task.objective, found, rows.labels))
        return losses

    def _count(self, batches: Sequence[StepBatch], *, over_processes: bool = True) -> StepTotals:
        """Count a step over all processes; for KTO this runs one pass without gradients."""
        n_counted = self.task.collator.n_counted
        counts = [
            *(sum(batch.path_tokens[place] for batch in batches) for place in range(n_counted)),
            sum(batch.n_trees for batch in batches),
            sum(batch.n_tokens for batch in batches),
        ]
        logratio_sum = 0.0
        if self.needs.mismatched and self.task.reference is not None:
            own = [rows for batch in batches for rows in batch.mismatched]
            turns = even_out(own, self._spare.mismatched)
            rows = ((rows.to(self.args.device), counts) for rows, counts in turns)
            logratio_sum = mismatched_logratios(self.policy, self.task.reference, rows)
        shared = torch.tensor([*counts, logratio_sum], dtype=torch.float64, device=self.args.device)
        if over_processes:
            shared = self.accelerator.reduce(shared, "sum")
        *path_tokens, n_trees, n_tokens = (int(count) for count in shared[:-1].tolist())
        # z0 is never negative (arXiv 2402.01306, Section 4.1) and carries no gradient.
        kl = (shared[-1] / n_trees).clamp(min=0).float() if self.needs.mismatched else None
        return StepTotals(n_trees, n_tokens, tuple(path_tokens), kl)

    def _check_finite(self, losses: Float[Tensor, " tree"], rows: TreeBatch) -> None:
        broken = (~torch.isfinite(losses)).nonzero().flatten().tolist()
        if broken:
            names = ", ".join(rows.tree_ids[index] for index in broken)
            raise BackendError(
                f"step {self.state.global_step + 1}: the loss is not finite, in trees {names} "
                "(expected finite numbers); lower train.learning_rate, or drop the rows; "
                "the last checkpoint is intact"
            )

    def _clip_grad_norm(self, model: nn.Module) -> Float[Tensor, ""]:
        norm: Tensor = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        if not torch.isfinite(norm):
            raise BackendError(
                f"step {self.state.global_step + 1}: the gradient norm is {norm.item()}, "
                f"in trees {', '.join(self._step_trees)}; lower train.learning_rate, or drop the "
                "rows; the last checkpoint is intact"
            )
        return norm

    def _sync_replicated_trainable_parameters(self, model: nn.Module) -> None:
        """Do nothing: adapters are equal from the start, and gradients are averaged by us."""

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """Write and seal a checkpoint; on a full disk the earlier ones stay as they are."""
        output = Path(str(self.args.output_dir))
        folder = output / f"checkpoint-{self.state.global_step}"
        (folder / SEAL).unlink(missing_ok=True)
        with guard_disk(folder):
            super()._save_checkpoint(model, None)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                seal_checkpoint(folder, self.task.identity)
        if self.is_world_process_zero():
            prune_checkpoints(output, self.task.keep_checkpoints)

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None
    ) -> None:
        """Save the trained adapter alone, or a policy without adapters whole; heads beside it."""
        if not self.args.should_save:
            return
        folder = Path(str(output_dir or self.args.output_dir))
        if isinstance(self.policy, PeftModel):
            save_adapter(self.policy, folder)
        else:
            super()._save(output_dir, state_dict)
        save_heads(heads_of(self.policy), folder)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        """Go back to the adapter of a checkpoint, and to the heads that trained beside it."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_heads(heads_of(self.policy), Path(resume_from_checkpoint))
