"""The reference, always explicit: base, adapter:PATH, snapshot, or none.

base          the policy's own base model, its adapters off
adapter:PATH  another adapter on the same base, loaded once beside the policy's
snapshot      a frozen copy of the policy's adapter as it is when the reference is made

No reference needs a second base model. `CachedReference` puts the cache in front of any of them.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor, nn

from trillium.errors import ConfigError
from trillium.files import hash_json
from trillium.policies.adapters import (
    POLICY_ADAPTER,
    adapter_digest,
    copy_adapter,
    has_effect,
    load_second_adapter,
    using_adapter,
)
from trillium.scoring.cache import LogpCache, record_key
from trillium.scoring.fingerprint import fingerprint_base
from trillium.scoring.forward import hidden_at_slots, layers_at_slots, open_model
from trillium.scoring.layout import evaluating
from trillium.scoring.scores import score
from trillium.tree_batch import TreeBatch


@runtime_checkable
class ReferenceProvider(Protocol):
    """What a trainer asks a reference."""

    @property
    def identity(self) -> str:
        """Name by content what the reference computes with."""
        ...

    def describe(self) -> str:
        """Say in one line which model this is, for the terminal and the report."""
        ...

    def equals(self, policy: nn.Module) -> bool:
        """Say whether `policy` computes what the reference does, so that their KL is 0."""
        ...

    def logps(self, batch: TreeBatch) -> Float[Tensor, " path"]:
        """Return the log-probability of each path, in nats, without gradient."""
        ...

    def token_logps(self, batch: TreeBatch) -> Float[Tensor, " slot"]:
        """Return the log-probability of each scored token, without gradient."""
        ...

    def hidden(self, batch: TreeBatch) -> Float[Tensor, "slot hidden"]:
        """Return the states that predict each slot; a cache does not hold these."""
        ...

    def layers(self, batch: TreeBatch) -> Float[Tensor, "slot layer hidden"]:
        """Return what every layer computed at each slot; a cache does not hold these."""
        ...


class LiveReference:
    """A reference that computes: the policy's base model with another adapter, or with none."""

    def __init__(
        self,
        policy: nn.Module,
        adapter: str | None,
        description: str,
        *,
        weights: Callable[[], str] | None = None,
    ) -> None:
        """Use `adapter` of `policy`, None for the base alone; `weights` names the base."""
        if not isinstance(policy, PeftModel):
            raise ConfigError(
                f"reference: {type(policy).__name__} has no adapter to switch off (needs a LoRA "
                "policy, whose base stays as it was); train with an adapter, or set reference=none"
            )
        self._policy = policy
        self._adapter = adapter
        self._description = description
        self._weights = weights or (lambda: fingerprint_base(policy))

    @cached_property
    def identity(self) -> str:
        """Name base weights, quantisation, dtype and the reference's adapter; nothing else."""
        name = self._adapter
        digest = "base" if name is None else adapter_digest(self._policy, name)
        return hash_json({"base": self._weights(), "adapter": digest})

    def arithmetic(self, batch: TreeBatch) -> str:
        """Name what moves last bits: device, threads, attention, layout and version of torch."""
        device = batch.input_ids.device.type
        threads = torch.get_num_threads() if device == "cpu" else None
        attention = open_model(self._policy).attention
        return hash_json([device, threads, attention, batch.layout, torch.__version__])

    def describe(self) -> str:
        """Say which model this is."""
        return self._description

    def equals(self, policy: nn.Module) -> bool:
        """Say whether the policy's adapter is the reference's, or has no effect for the base."""
        if self._adapter is None:
            return not has_effect(policy)
        return adapter_digest(policy) == adapter_digest(self._policy, self._adapter)

    @torch.no_grad()
    def logps(self, batch: TreeBatch) -> Float[Tensor, " path"]:
        """Score the paths with the reference; dropout is off whatever the policy is doing."""
        with evaluating(self._policy), using_adapter(self._policy, self._adapter):
            return score(self._policy, batch).logps

    @torch.no_grad()
    def token_logps(self, batch: TreeBatch) -> Float[Tensor, " slot"]:
        """Score each scored token with the reference."""
        with evaluating(self._policy), using_adapter(self._policy, self._adapter):
            return score(self._policy, batch).token["logp"]

    @torch.no_grad()
    def hidden(self, batch: TreeBatch) -> Float[Tensor, "slot hidden"]:
        """Return the reference's hidden states, for a divergence over the whole vocabulary."""
        with evaluating(self._policy), using_adapter(self._policy, self._adapter):
            return hidden_at_slots(open_model(self._policy), batch)

    @torch.no_grad()
    def layers(self, batch: TreeBatch) -> Float[Tensor, "slot layer hidden"]:
        """Return what every layer of the reference computed, for masks over tokens."""
        with evaluating(self._policy), using_adapter(self._policy, self._adapter):
            return layers_at_slots(open_model(self._policy), batch)


class BaseReference(LiveReference):
    """The base model: the policy's adapters off."""

    def __init__(self, policy: nn.Module, *, weights: Callable[[], str] | None = None) -> None:
        """Refer to the base of `policy`."""
        super().__init__(policy, None, "base (the policy's adapter off)", weights=weights)


class AdapterReference(LiveReference):
    """Another adapter on the policy's base, as when DPO follows supervised training."""

    def __init__(
        self, policy: nn.Module, folder: Path, *, weights: Callable[[], str] | None = None
    ) -> None:
        """Load the adapter in `folder` beside the policy's; raises ConfigError when it cannot."""
        super().__init__(policy, "reference", f"adapter {folder}", weights=weights)
        load_second_adapter(self._policy, folder, "reference")


class SnapshotReference(LiveReference):
    """A frozen copy of the policy's adapter; the reference of iterative methods."""

    def __init__(self, policy: nn.Module, *, weights: Callable[[], str] | None = None) -> None:
        """Copy the policy's adapter as it is now."""
        super().__init__(policy, "snapshot", "snapshot of the policy's adapter", weights=weights)
        copy_adapter(self._policy, POLICY_ADAPTER, "snapshot")


class CachedReference:
    """A reference whose results are kept on disk, path by path.

    `n_hits` counts the paths read from disk, `n_computed` those the model had to score.

    A batch with any path missing is computed whole, and records that exist are kept: planned over
    the same batches, a run that was killed ends with the same bits as one that was not.
    """

    def __init__(
        self, live: LiveReference, cache: LogpCache, *, ask_all: Callable[[bool], bool] = bool
    ) -> None:
        """Answer from `cache`, and let `live` compute what is not there.

        `ask_all` says whether any process says yes: where weights are spread over processes, all
        must compute when one of them has to.
        """
        self._live = live
        self._ask_all = ask_all
        self._cache = cache
        self.n_hits = 0
        self.n_computed = 0
        self._known: dict[bytes, float] = {}

    @property
    def identity(self) -> str:
        """Name by content what the reference computes with."""
        return self._live.identity

    def describe(self) -> str:
        """Say which model this is and where its results are kept."""
        return f"{self._live.describe()}, cached in {self._cache.path}"

    def equals(self, policy: nn.Module) -> bool:
        """Say whether `policy` computes what the reference does."""
        return self._live.equals(policy)

    def logps(self, batch: TreeBatch) -> Float[Tensor, " path"]:
        """Return the log-probability of each path; memory first, then disk, then the model."""
        keys = self._keys(batch)
        unread = [key for key in dict.fromkeys(keys) if key not in self._known]
        records = self._read(batch, keys, unread)
        self._known |= {key: _add_up(record) for key, record in records.items()}
        sums = [self._known[key] for key in keys]
        return torch.tensor(sums, dtype=torch.float32, device=batch.input_ids.device)

    def token_logps(self, batch: TreeBatch) -> Float[Tensor, " slot"]:
        """Return the log-probability of each scored token; disk first, then the model."""
        keys = self._keys(batch)
        records = self._read(batch, keys, list(dict.fromkeys(keys)))
        slots = np.zeros(len(batch.target), np.float32)
        slots[batch.entry_slot.cpu().numpy()] = np.concatenate([records[key] for key in keys])
        return torch.from_numpy(slots).to(batch.input_ids.device)

    def hidden(self, batch: TreeBatch) -> Float[Tensor, "slot hidden"]:
        """Let the model compute its states: they are too large to keep."""
        return self._live.hidden(batch)

    def layers(self, batch: TreeBatch) -> Float[Tensor, "slot layer hidden"]:
        """Let the model compute what its layers hold."""
        return self._live.layers(batch)

    def _keys(self, batch: TreeBatch) -> list[bytes]:
        identity = hash_json([self._live.identity, self._live.arithmetic(batch)])
        return [record_key(identity, digest) for digest in batch.path_digests]

    def _read(
        self, batch: TreeBatch, keys: list[bytes], wanted: list[bytes]
    ) -> dict[bytes, NDArray[np.float32]]:
        """Return the records `wanted` of the batch's `keys`, computing what is not on disk."""
        found = self._cache.get(wanted)
        self.n_hits += len(found)
        missing = set(wanted) - set(found)
        if not self._ask_all(bool(missing)):
            return found
        values = self._live.token_logps(batch)[batch.entry_slot].float().cpu().numpy()
        ends = torch.bincount(batch.entry_path, minlength=batch.n_paths).cumsum(0).tolist()
        starts = [0, *ends[:-1]]
        records = {
            key: values[start:end]
            for key, start, end in zip(keys, starts, ends, strict=True)
            if key in missing
        }
        self._cache.put(records)
        self.n_computed += len(records)
        return found | records


def open_reference(
    kind: str,
    policy: nn.Module,
    *,
    cache: LogpCache | None = None,
    folder: Path | None = None,
    ask_all: Callable[[bool], bool] = bool,
) -> CachedReference | LiveReference | None:
    """Return the reference that `kind` names: base, adapter:PATH, snapshot, or none (None).

    `folder` is where the base's weights came from; `ask_all` as in `CachedReference`. Raises
    ConfigError for any other kind.
    """
    name, _, path = kind.partition(":")

    def weights() -> str:
        return fingerprint_base(policy, folder=folder, cache=cache)

    live: LiveReference
    if kind == "none":
        return None
    if kind == "base":
        live = BaseReference(policy, weights=weights)
    elif kind == "snapshot":
        live = SnapshotReference(policy, weights=weights)
    elif name == "adapter" and path:
        live = AdapterReference(policy, Path(path).expanduser(), weights=weights)
    else:
        raise ConfigError(
            f"reference: {kind!r} is no reference (base, adapter:PATH, snapshot or none); "
            "choose one of these"
        )
    return live if cache is None else CachedReference(live, cache, ask_all=ask_all)


def _add_up(record: NDArray[np.float32]) -> float:
    """Return the sum rounded once to float32, as `sum_paths` does."""
    return float(np.float32(record.astype(np.float64).sum()))
