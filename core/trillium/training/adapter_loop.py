"""`train_adapters`: several adapters of one model that learn together, resumable at any moment.

For methods in which one step moves more than the policy's own adapter, which `align` cannot do:
AdamW at a constant rate per adapter, in one process. The method computes gradients; this loop owns
order, optimizer, checkpoints and journal. What is random in a step is seeded by its number, so
nothing but weights, moments and the method's state has to be kept.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from peft import LoraModel, PeftModel
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file

from trillium.config import Seed
from trillium.errors import BackendError, DataError
from trillium.files import hash_json
from trillium.policies.adapters import adapter_digest, adapter_parameters
from trillium.progress import Progress
from trillium.runs import hash_config
from trillium.scoring.fingerprint import fingerprint_base
from trillium.scoring.layout import choose_layout
from trillium.training.checkpoints import (
    guard_disk,
    newest_checkpoint,
    prune_checkpoints,
    seal_checkpoint,
    step_of,
)
from trillium.training.config import GradNorm, Order
from trillium.training.journal import Journal, read_metrics
from trillium.training.round_rows import hash_trees
from trillium.training.sampler import plan_epoch
from trillium.training.steps import StepCollator
from trillium.tree_batch import TreeBatch
from trillium.trees import Layout, TokenTree


class LoopConfig(BaseModel):
    """Choose how several adapters are optimised."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_grad_norm: GradNorm = Field(default=1.0, description="gradient norm of each adapter")
    num_train_epochs: int = Field(default=1, gt=0, description="passes over the trees")
    trees_per_step: int = Field(default=8, gt=0, description="trees of one optimizer step")
    micro_tokens: int = Field(
        default=1024, gt=0, description="tokens in memory at once; changes no gradient"
    )
    order: Order = Field(default="shuffle", description="length | shuffle | sequential")
    save_steps: int = Field(default=50, gt=0, description="optimizer steps between checkpoints")
    seed: Seed = Field(default=0, description="order of the trees and dropout")


BatchRows = Callable[[Sequence[TokenTree]], Iterator[TreeBatch]]
"""Cuts trees into batches that fit in memory, on the model's device."""


@runtime_checkable
class JointMethod(Protocol):
    """What one step of several adapters computes."""

    @property
    def identity(self) -> str:
        """Name the method, its settings and its reference."""
        ...

    @property
    def adapters(self) -> tuple[str, ...]:
        """Name the adapters that learn; they are on the model already."""
        ...

    def learning_rates(self) -> Mapping[str, float]:
        """Return the rate of each adapter in the coming step."""
        ...

    def accumulate(self, trees: Sequence[TokenTree], batch_rows: BatchRows) -> Mapping[str, float]:
        """Add one step's gradients, row batch by row batch; returns what to record of it."""
        ...

    def state(self) -> dict[str, str | float]:
        """Return what the method remembers between steps."""
        ...

    def restore(self, state: Mapping[str, str | float]) -> None:
        """Go back to what `state` returned."""
        ...


def train_adapters(
    model: PeftModel,
    method: JointMethod,
    trees: Sequence[TokenTree],
    config: LoopConfig,
    output: Path,
    *,
    title: str,
) -> list[dict[str, int | float]]:
    """Train the method's adapters in place and return the record of every step.

    Killed at any moment and called again it ends in the same bytes. Raises DataError when there is
    no tree, BackendError for a gradient that is not finite and for a full disk.
    """
    if not trees:
        raise DataError(f"{title}: no tree to train on (needs at least one); check the data")
    output.mkdir(parents=True, exist_ok=True)
    collator = StepCollator(_layout(model), pad_id=0, micro_tokens=config.micro_tokens)

    def batch_rows(some: Sequence[TokenTree]) -> Iterator[TreeBatch]:
        return (rows.to(model.device) for rows in collator.batch_rows(some))

    identity = _identify(model, method, trees, config)
    entries = _unfreeze(model, method.adapters)
    optimizer = torch.optim.AdamW(
        [{"params": list(each.values())} for each in entries.values()], weight_decay=0.0
    )
    # A call that was cut short leaves its gradients on the model.
    optimizer.zero_grad()
    journal = Journal(output)
    checkpoint = newest_checkpoint(output, identity, last_recorded=journal.last_complete_step())
    first = _resume(checkpoint, method, entries, optimizer)
    journal.rewind(first)
    batches = list(_plan(trees, config))
    model.train()
    with Progress(title, n_total=len(batches), n_done=first, unit="steps") as progress:
        for step, batch in enumerate(batches[first:], first + 1):
            started = time.perf_counter()
            for group, rate in zip(
                optimizer.param_groups, method.learning_rates().values(), strict=True
            ):
                group["lr"] = rate
            with torch.random.fork_rng():
                torch.manual_seed(config.seed * 1_000_003 + step)
                metrics = method.accumulate(batch, batch_rows)
            _clip(entries, config.max_grad_norm, step)
            optimizer.step()
            optimizer.zero_grad()
            journal.append(step, metrics, {"seconds": time.perf_counter() - started})
            if step % config.save_steps == 0 or step == len(batches):
                _save(output / f"checkpoint-{step}", identity, method, entries, optimizer)
            progress.advance()
    model.eval()
    return read_metrics(output)


@contextmanager
def through_adapter(model: PeftModel, name: str) -> Iterator[None]:
    """Compute with adapter `name` inside; what requires a gradient stays as it is."""
    tuner = model.base_model
    assert isinstance(tuner, LoraModel)
    active = model.active_adapter
    flags = {p: p.requires_grad for key, p in model.named_parameters() if "lora_" in key}

    def switch(to: str) -> None:
        tuner.set_adapter(to)
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)

    switch(name)
    try:
        yield
    finally:
        switch(active)


_Entries = Mapping[str, Mapping[str, torch.nn.Parameter]]


def _layout(model: PeftModel) -> Layout:
    return choose_layout(model, "auto").layout


def _unfreeze(model: PeftModel, names: Sequence[str]) -> _Entries:
    entries = {name: adapter_parameters(model, name) for name in names}
    for each in entries.values():
        for parameter in each.values():
            parameter.requires_grad_(True)
    return entries


def _plan(trees: Sequence[TokenTree], config: LoopConfig) -> Iterator[list[TokenTree]]:
    lengths = [tree.n_tokens for tree in trees]
    for epoch in range(config.num_train_epochs):
        for indices in plan_epoch(
            lengths, config.trees_per_step, order=config.order, seed=config.seed, epoch=epoch
        ):
            yield [trees[index] for index in indices]


def _clip(entries: _Entries, max_norm: float, step: int) -> None:
    """Clip each adapter by itself, so that none scales the gradient of another."""
    for name, each in entries.items():
        norm = torch.nn.utils.clip_grad_norm_(each.values(), max_norm)
        if not torch.isfinite(norm):
            raise BackendError(
                f"step {step}: the gradient norm of adapter {name} is {norm.item()} (expected a "
                "finite number); lower the learning rate; the last checkpoint is intact"
            )


def _identify(
    model: PeftModel, method: JointMethod, trees: Sequence[TokenTree], config: LoopConfig
) -> str:
    return hash_json(
        {
            "base": fingerprint_base(model),
            "start": {name: adapter_digest(model, name) for name in method.adapters},
            "method": method.identity,
            "trees": hash_trees(trees),
            "config": hash_config(config),
        }
    )


def _save(
    folder: Path,
    identity: str,
    method: JointMethod,
    entries: _Entries,
    optimizer: torch.optim.Optimizer,
) -> None:
    with guard_disk(folder):
        folder.mkdir(exist_ok=True)
        for name, each in entries.items():
            save_file(
                {key: parameter.detach().contiguous() for key, parameter in each.items()},
                folder / f"{name}.safetensors",
            )
        torch.save(optimizer.state_dict(), folder / "optimizer.pt")
        (folder / "method.json").write_text(json.dumps(method.state()) + "\n", encoding="utf-8")
        seal_checkpoint(folder, identity)
    prune_checkpoints(folder.parent, keep=2)


def _resume(
    folder: Path | None,
    method: JointMethod,
    entries: _Entries,
    optimizer: torch.optim.Optimizer,
) -> int:
    """Go back to a checkpoint; returns how many steps are done."""
    if folder is None:
        return 0
    with torch.no_grad():
        for name, each in entries.items():
            saved = load_file(folder / f"{name}.safetensors")
            for key, parameter in each.items():
                parameter.copy_(saved[key])
    optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
    method.restore(json.loads((folder / "method.json").read_text(encoding="utf-8")))
    return step_of(folder)
