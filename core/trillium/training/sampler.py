"""Which trees make up each optimizer step: a pure function of (seed, epoch, rank).

An optimizer batch is chosen first and only then dealt to processes and accumulation steps, so the
split never changes what a step sees. Nothing is stored: resuming skips the batches already done.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Sampler

from trillium.errors import ConfigError
from trillium.training.config import Order
from trillium.training.steps import Sample

# Optimizer batches per group of similar lengths: enough to fill rows, few enough to stay mixed.
_BATCHES_PER_GROUP = 16


@dataclass(frozen=True)
class Split:
    """Say how one optimizer batch is dealt out: trees per micro step, micro steps, processes."""

    per_device: int
    accumulation: int = 1
    n_processes: int = 1
    rank: int = 0

    @property
    def n_trees(self) -> int:
        """Count the trees of a full optimizer batch, over all processes."""
        return self.per_device * self.accumulation * self.n_processes


def plan_epoch(
    lengths: Sequence[int], batch_size: int, *, order: Order, seed: int, epoch: int
) -> list[list[int]]:
    """Cut one epoch into optimizer batches of tree indices; only the last one may be smaller.

    `length`: shuffled, then sorted within groups of 16 batches, so that a batch holds similar
    lengths while epochs differ. `shuffle`: uniform. `sequential`: the order of the data set.
    """
    if order == "sequential":
        indices = list(range(len(lengths)))
        return [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    indices = torch.randperm(len(lengths), generator=generator).tolist()
    if order == "length":
        group = batch_size * _BATCHES_PER_GROUP
        indices = [
            index
            for start in range(0, len(indices), group)
            for index in sorted(indices[start : start + group], key=lambda i: -lengths[i])
        ]
    batches = [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]
    if order == "length":
        # The ragged batch stays last, so that every earlier step has the full batch size.
        ragged = batches.pop() if len(batches[-1]) < batch_size else None
        batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
        batches += [ragged] if ragged is not None else []
    return batches


class StepSampler(Sampler[list[int]]):
    """Yield this process's share of each optimizer batch, `accumulation` lists per full batch.

    All processes yield equally many lists; in a ragged last batch some of them may be empty.
    """

    def __init__(
        self, lengths: Sequence[int], split: Split, *, order: Order = "length", seed: int = 0
    ) -> None:
        """Plan over trees with the given token counts; raises ConfigError when there are none."""
        if not lengths:
            raise ConfigError("training: the data set has no tree (needs at least one); check it")
        self._lengths = tuple(lengths)
        self._split = split
        self._order: Order = order
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration yields."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Count the lists of one epoch."""
        full, rest = divmod(len(self._lengths), self._split.n_trees)
        return full * self._split.accumulation + -(-rest // self._chunk)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield lists of tree indices."""
        batches = plan_epoch(
            self._lengths,
            self._split.n_trees,
            order=self._order,
            seed=self._seed,
            epoch=self._epoch,
        )
        for batch in batches:
            for start in range(0, len(batch), self._chunk):
                yield batch[start : start + self._chunk][
                    self._split.rank :: self._split.n_processes
                ]

    @property
    def _chunk(self) -> int:
        return self._split.per_device * self._split.n_processes


class StepLoader(DataLoader[Sample]):
    """Load steps, and pass on to the sampler which epoch it is."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration yields."""
        sampler = self.batch_sampler
        assert isinstance(sampler, StepSampler)
        sampler.set_epoch(epoch)
