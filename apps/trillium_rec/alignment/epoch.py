"""One epoch of Algorithm 2 (arXiv 2502.18965, Section 3.4): the log for all, preferences for some.

    for each sample:  L = L_NTP                        with probability 1 - r
                      L = L_NTP + lam * L_preference   with probability r
    step:             the mean of L over the samples of a batch

The sessions were drawn from the snapshot, and the snapshot does not change during the epoch, so
drawing them all before it is the algorithm as written. Dropout is on for the log, as in training,
and off for preferences, whose reference has none. In the lazy model's dense loss of the log all
items compete here, in training only those that it shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from trillium.errors import BackendError, DataError
from trillium.progress import Progress
from trillium.training.rounds import derive_seed

from trillium_rec.alignment.config import AlignConfig
from trillium_rec.alignment.losses import (
    SessionScores,
    preference_losses,
    scored_codes,
)
from trillium_rec.alignment.pool import Pool, session_code_logps
from trillium_rec.alignment.prompts import Prompted, plan_epoch
from trillium_rec.alignment.selection import select
from trillium_rec.device import own_draws
from trillium_rec.fit import same_sums
from trillium_rec.modelling import Model
from trillium_rec.splits import Sequences

Ints = NDArray[np.int64]
_REFERENCE_BATCH = 64
_WANTED = ("enough whole sessions", "every session of its group whole")


@dataclass(frozen=True)
class Compared:
    """Hold the sessions that an epoch compares, by prompt: the winner first, then the losers.

    `rows` are the samples they belong to; `reference` are the snapshot's log-probabilities. The
    tensors lie on the model's device.
    """

    rows: Ints
    histories: Sequences
    sessions: Int[Tensor, "prompt session place"]
    rewards: Float[Tensor, "prompt session"]
    reference: Float[Tensor, "prompt session place level"]

    @property
    def n_prompts(self) -> int:
        """Count the prompts that are left after the selection."""
        return len(self.rows)


def compare_sessions(
    model: Model,
    pool: Pool,
    rows: Ints,
    histories: Sequences,
    config: AlignConfig,
    generator: torch.Generator,
) -> Compared:
    """Choose what is compared and score it under the snapshot, which `model` still is.

    A group is compared whole, so prompts with a session missing are left out of it.
    Raises DataError when no prompt is left.
    """
    preferences = select(pool, config.selection, generator)
    is_group = config.objective is not None and config.objective.name == "group"
    is_kept = preferences.is_kept & (pool.is_whole.all(dim=1) if is_group else True)
    kept = torch.nonzero(is_kept).flatten()
    if len(kept) == 0:
        raise DataError(
            f"align: none of {len(rows)} prompts gives a preference (needs {_WANTED[is_group]}, "
            f"and rewards {config.selection.margin:g} nats apart or more); lower "
            "align.selection.margin, draw more sessions, or make more items eligible"
        )
    beams = torch.cat([preferences.winner[:, None], preferences.losers], dim=1)[kept]
    if is_group:
        beams = _whole_group(pool, preferences.winner[kept])
    sessions = pool.sessions[kept[:, None], beams]
    chosen = histories.take(kept.numpy())
    model.train(False)
    n_levels, device = model.codes.shape[1], model.device
    parts = [torch.zeros(0, beams.shape[1], sessions.shape[2], n_levels, device=device)]
    with torch.no_grad():
        for begin in range(0, len(kept), _REFERENCE_BATCH):
            part = np.arange(begin, min(begin + _REFERENCE_BATCH, len(kept)))
            parts.append(session_code_logps(model, chosen.take(part), sessions[part]))
    rewards = pool.rewards[kept[:, None], beams].to(device)
    return Compared(rows[kept.numpy()], chosen, sessions.to(device), rewards, torch.cat(parts))


def train_epoch(
    model: Model, samples: Prompted, compared: Compared | None, config: AlignConfig, seed: int
) -> Mapping[str, float]:
    """Train in place for one epoch and return means over it.

    `loss_log` is per step, all others per compared prompt: losses, the gain in log-probability of
    winners and losers over the snapshot in nats, and how often the winner gained more.
    Raises BackendError for a loss that is not finite.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.0)
    place_of = {} if compared is None else {row: p for p, row in enumerate(compared.rows.tolist())}
    steps = plan_epoch(samples.n_samples, config.batch_size, derive_seed(seed, "order"))
    meter = _Meter()
    with (
        own_draws(derive_seed(seed, "dropout"), model.device),
        same_sums(),
        Progress("align", n_total=len(steps), unit="steps") as bar,
    ):
        for rows in steps:
            total = torch.zeros((), device=model.device)
            if config.imitates_log:
                model.train()
                total = model.losses(samples.batch(rows)).total  # type: ignore[arg-type]
                meter.add("loss_log", total.detach())
            places = [place_of[row] for row in rows.tolist() if row in place_of]
            if places:
                assert compared is not None
                losses = _preference(model, compared, places, config, meter)
                total = total + config.lam * losses.sum() / len(rows)
            _step(model, optimizer, total)
            bar.advance()
    model.train(False)
    n_compared = 0 if compared is None else compared.n_prompts
    return {"steps": len(steps), "prompts": n_compared, **meter.means()}


def _preference(
    model: Model,
    compared: Compared,
    places: Sequence[int],
    config: AlignConfig,
    meter: "_Meter",
) -> Float[Tensor, " prompt"]:
    model.train(False)
    at = torch.tensor(places, device=model.device)
    sessions, reference = compared.sessions[at], compared.reference[at]
    policy = session_code_logps(model, compared.histories.take(np.array(places)), sessions)
    is_scored = scored_codes(model.codes[sessions], mask_shared=config.mask_shared)
    assert config.objective is not None
    scores = SessionScores(policy, reference, is_scored, compared.rewards[at])
    losses = preference_losses(config.objective, scores)
    gain = (policy.detach() - reference).sum(dim=(2, 3))
    meter.add("loss_preference", losses.detach())
    meter.add("gain_winner", gain[:, 0])
    meter.add("gain_losers", gain[:, 1:].mean(dim=1))
    meter.add("accuracy", (gain[:, :1] > gain[:, 1:]).float().mean(dim=1))
    meter.add("reward_gap", compared.rewards[at][:, 0] - compared.rewards[at][:, 1:].mean(dim=1))
    return losses


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, total: Float[Tensor, ""]) -> None:
    if not total.requires_grad:
        return
    if not torch.isfinite(total):
        raise BackendError(
            "align: the loss is not finite (expected a finite number); lower align.learning_rate "
            "or align.lam; the model of the last round is intact"
        )
    total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


class _Meter:
    """Means of what was added, each value counting once."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, values: Tensor) -> None:
        total = values.double().sum()
        self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._counts[name] = self._counts.get(name, 0) + values.numel()

    def means(self) -> dict[str, float]:
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}


def _whole_group(pool: Pool, winner: Int[Tensor, " kept"]) -> Int[Tensor, "kept beam"]:
    """Return all sessions of each prompt; the winner has changed places with the first one."""
    beams = torch.arange(pool.sessions.shape[1]).repeat(len(winner), 1)
    beams[torch.arange(len(winner)), winner] = 0
    beams[:, 0] = winner
    return beams
