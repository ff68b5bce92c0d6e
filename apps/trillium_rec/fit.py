"""Train a next-item model: epochs, validation, the best weights kept, resumable at every epoch.

All randomness of an epoch comes from seed and epoch number, so a run that was killed and continued
ends in the same bits as one that was not.
"""

import hashlib
import io
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils import deterministic
from trillium.errors import BackendError, DataError
from trillium.files import write_atomically
from trillium.progress import Progress

from trillium_rec.device import own_draws
from trillium_rec.fit_config import FitConfig
from trillium_rec.models.sasrec import Losses

log = logging.getLogger(__name__)

_STATE = "state.pt"
_N_SEAL = hashlib.sha256().digest_size


class Batch(Protocol):
    """Count what a batch of examples predicts; a model knows what else is in it."""

    @property
    def n_targets(self) -> int:
        """Count the items to predict."""
        ...


def fit(
    model: nn.Module,
    make_batches: Callable[[int], Sequence[Batch]],
    config: FitConfig,
    folder: Path,
    *,
    validate: Callable[[], float],
    seed: int,
    title: str = "train",
) -> list[Mapping[str, float]]:
    """Train in place and leave the model at its best validation; returns a row per epoch.

    `make_batches` returns the batches of an epoch from a seed; `validate` returns a number to
    maximise. `folder` keeps the state after every epoch.
    Raises DataError when there is nothing to learn, BackendError when a loss is not finite.
    """
    fitting = _Fitting(model, config, folder)
    fitting.resume()
    n_batches = len(make_batches(_epoch_seed(seed, 0)))
    if n_batches == 0:
        raise DataError(
            f"{title}: no user has two training events (one is needed to predict the other; the "
            "last two of a user are for validation and test); give longer histories"
        )
    n_total = config.n_epochs * n_batches
    with Progress(title, n_total=n_total, n_done=fitting.epoch * n_batches, unit="steps") as bar:
        while fitting.epoch < config.n_epochs and fitting.n_stale < config.patience:
            batches = make_batches(_epoch_seed(seed, fitting.epoch))
            started = time.monotonic()
            row = _run_epoch(fitting, batches, bar, n_total, seed)
            row["seconds"] = round(time.monotonic() - started, 3)
            is_last = fitting.epoch + 1 == config.n_epochs
            if (fitting.epoch + 1) % config.eval_every == 0 or is_last:
                model.eval()
                row["validation"] = validate()
                fitting.judge(row["validation"])
            fitting.finish_epoch(row)
    model.load_state_dict(fitting.best)
    model.eval()
    return fitting.rows


class _Fitting:
    """What an epoch starts from, in memory and on disk."""

    def __init__(self, model: nn.Module, config: FitConfig, folder: Path) -> None:
        matrices = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        self.model, self.config, self._folder = model, config, folder
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.epoch, self.step, self.n_stale = 0, 0, 0
        self.best_value = -math.inf
        self.best = _copy(model)
        self.rows: list[Mapping[str, float]] = []

    def resume(self) -> None:
        """Take up the state of the last finished epoch, if there is one and it is whole."""
        path = self._folder / _STATE
        if not path.exists():
            return
        sealed = path.read_bytes()
        if hashlib.sha256(sealed[_N_SEAL:]).digest() != sealed[:_N_SEAL]:
            log.warning("%s: has changed since it was written; starting from the beginning", path)
            return
        state = torch.load(io.BytesIO(sealed[_N_SEAL:]), weights_only=True, map_location="cpu")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = state["best"]
        self.epoch, self.step, self.n_stale, self.best_value = state["counters"]
        self.rows = json.loads(state["rows"])

    def judge(self, value: float) -> None:
        """Keep the weights when they are the best so far."""
        if value > self.best_value:
            self.best_value, self.n_stale, self.best = value, 0, _copy(self.model)
        else:
            self.n_stale += 1

    def finish_epoch(self, row: dict[str, float]) -> None:
        """Write everything that the next epoch needs, in one step."""
        self.rows.append({"epoch": self.epoch, **row})
        self.epoch += 1
        stream = io.BytesIO()
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "best": self.best,
                "counters": (self.epoch, self.step, self.n_stale, self.best_value),
                "rows": json.dumps(self.rows),
            },
            stream,
        )
        content = stream.getvalue()
        write_atomically(self._folder / _STATE, hashlib.sha256(content).digest() + content)


def write_log(rows: list[Mapping[str, float]], path: Path) -> None:
    """Write one line per epoch, without the clock."""
    lines = [
        json.dumps({key: value for key, value in row.items() if key != "seconds"}) for row in rows
    ]
    write_atomically(path, "\n".join(lines) + "\n")


def _run_epoch(
    fitting: _Fitting, batches: Sequence[Batch], bar: Progress, n_total: int, seed: int
) -> dict[str, float]:
    fitting.model.train()
    totals: dict[str, Tensor] = {}
    n_targets = 0
    device = next(fitting.model.parameters()).device
    nothing = torch.zeros((), dtype=torch.float64, device=device)
    # Dropout draws from the global generators; this makes an epoch's draws its own.
    with own_draws(_epoch_seed(seed, fitting.epoch), device), same_sums():
        for batch in batches:
            found = _run_step(fitting, batch, n_total)
            n_batch = batch.n_targets
            n_targets += n_batch
            for name, value in found.items():
                totals[name] = totals.get(name, nothing) + value.double() * n_batch
            bar.advance()
    return {f"loss_{name}": float(total) / n_targets for name, total in totals.items()}


def _run_step(fitting: _Fitting, batch: Batch, n_total: int) -> dict[str, Tensor]:
    config, model = fitting.config, fitting.model
    warm = min(1.0, (fitting.step + 1) / max(1, config.warmup_steps))
    progress = min(1.0, fitting.step / n_total)
    for group in fitting.optimizer.param_groups:
        group["lr"] = (
            config.learning_rate * warm * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))
        )
    losses: Losses = model.losses(batch)  # type: ignore[operator]
    if not torch.isfinite(losses.total):
        raise BackendError(
            f"step {fitting.step + 1}: the loss is not finite (expected a finite number); lower "
            "fit.learning_rate; the state of the last epoch is intact"
        )
    losses.total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    fitting.optimizer.step()
    fitting.optimizer.zero_grad(set_to_none=True)
    fitting.step += 1
    return losses.parts


@contextmanager
def same_sums() -> Iterator[None]:
    """Add gradients of repeated indices in one order; several threads would add as they come."""
    before = torch.are_deterministic_algorithms_enabled()
    is_filled = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)
    # Filling every new tensor would find code that reads it too early, at an eighth of the time.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        deterministic.fill_uninitialized_memory = is_filled  # type: ignore[attr-defined]


def _epoch_seed(seed: int, epoch: int) -> int:
    return seed * 100_003 + epoch


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
