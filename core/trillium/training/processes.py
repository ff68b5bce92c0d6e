"""The processes that train together: who is first, what it tells the others, how all of them leave.

`accelerate launch` and `torchrun` start them; a command that nobody launched is alone, and
everything here is then a matter of one process. Whoever opens the group leaves it in order: threads
of a group that is still open when the interpreter ends can abort it after all work is done.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from trillium.errors import ConfigError

Told = TypeVar("Told")


@dataclass(frozen=True)
class Processes:
    """Say how many processes train together, and which of them this one is, from 0."""

    n: int
    index: int

    @property
    def is_first(self) -> bool:
        """Say whether this process owns the folder and speaks to the user."""
        return self.index == 0

    def tell(self, value: Told | None = None) -> Told:
        """Return in every process what the first one passes; all of them must call it."""
        if self.n == 1:
            return cast(Told, value)
        return cast(Told, broadcast_object_list([value])[0])


ALONE = Processes(n=1, index=0)
"""The one process of a command that nobody launched."""


# What `accelerate launch` sets for engines that keep only a share of the weights in each process.
_SHARDING = {"ACCELERATE_USE_FSDP": "--use_fsdp", "ACCELERATE_USE_DEEPSPEED": "--use_deepspeed"}


def refuse_sharding() -> None:
    """Raise ConfigError when the launcher asks for weights that are spread over processes.

    Such engines gather a layer's weights from all processes in every pass. Ours take different
    numbers of passes: each cuts its trees into rows by their tokens, and may have none at the end
    of an epoch. They would wait for one another for ever.
    """
    for name, option in _SHARDING.items():
        if os.environ.get(name, "false").lower() == "true":
            raise ConfigError(
                f"{name}=true: weights cannot be spread over processes (they take different "
                "numbers of passes over their trees, and each pass would wait for all of them); "
                f"launch without {option}: every process then holds the whole base; where that "
                "does not fit set policy.quantisation=nf4"
            )


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the processes that were launched together, and leave the group at the end.

    All wait for one another before they leave. A process that fails leaves at once: the others
    would wait for ever, and learn of it from the launcher or from their next exchange. Raises
    ConfigError when the launcher asks for sharded weights.
    """
    refuse_sharding()
    state = PartialState(cpu=not torch.cuda.is_available())
    try:
        yield Processes(state.num_processes, state.process_index)
        if dist.is_initialized():
            dist.barrier()
    finally:
        state.destroy_process_group()
