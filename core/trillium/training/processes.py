"""The processes that train together: who is first, what it tells the others, how all of them leave.

`accelerate launch` and `torchrun` start them; a command that nobody launched is alone, and
everything here is then a matter of one process. Whoever opens the group leaves it in order: threads
of a group that is still open when the interpreter ends can abort it after all work is done.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, reduce
from torch import Tensor, nn

from trillium.errors import ConfigError

Told = TypeVar("Told")


@dataclass(frozen=True)
class Processes:
    """Say how many processes train together, and which of them this one is, from 0.

    `shards` says that the weights of the base shall be spread over them.
    """

    n: int
    index: int
    shards: bool = False

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

# Gradients that are averaged in one exchange, at most, but for one that is larger alone: 16 MiB.
_NUMBERS_PER_EXCHANGE = 1 << 22


# What `accelerate launch` sets for engines that keep only a share of the weights in each process.
_SHARDING = {"ACCELERATE_USE_FSDP": "--use_fsdp", "ACCELERATE_USE_DEEPSPEED": "--use_deepspeed"}

# Its options that would change what is kept where: name, values that are refused, remedy.
_UNKNOWN_OPTIONS = (
    ("FSDP_OFFLOAD_PARAMS", ("true", "1"), "leave --fsdp_offload_params out"),
    (
        "FSDP_RESHARD_AFTER_FORWARD",
        ("false", "0", "no_reshard", "shard_grad_op"),
        "leave --fsdp_reshard_after_forward out",
    ),
    (
        "FSDP_ACTIVATION_CHECKPOINTING",
        ("true", "1"),
        "leave --fsdp_activation_checkpointing out and set train.gradient_checkpointing=true",
    ),
)


def wants_sharding() -> bool:
    """Say whether the launcher asks for a base whose weights are spread over processes.

    Raises ConfigError for other engines than FSDP 2, and for options of it that are not known here.
    """
    if _is_on("ACCELERATE_USE_DEEPSPEED"):
        raise ConfigError(
            "ACCELERATE_USE_DEEPSPEED=true: weights are spread over processes by FSDP 2 alone; "
            "launch with --use_fsdp --fsdp_version 2 instead of --use_deepspeed"
        )
    if not _is_on("ACCELERATE_USE_FSDP"):
        return False
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise ConfigError(
            f"FSDP_VERSION={version}: weights are spread over processes by FSDP 2 alone; launch "
            "with --use_fsdp --fsdp_version 2"
        )
    for name, refused, remedy in _UNKNOWN_OPTIONS:
        value = os.environ.get(name, "")
        if value.lower() in refused:
            raise ConfigError(f"{name}={value}: is not known here; {remedy}")
    return True


def refuse_sharding() -> None:
    """Raise ConfigError where the launcher asks for spread weights and nothing spreads them."""
    for name, option in _SHARDING.items():
        if _is_on(name):
            raise ConfigError(
                f"{name}=true: only `trillium train` spreads weights over processes; launch "
                f"without {option}: every process then holds the whole base"
            )


def _is_on(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("true", "1")


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average over processes what each has added up; a process without trees adds zeros.

    Many small gradients travel as one: an exchange costs the same for a number as for a million.
    """
    if PartialState().num_processes == 1:
        return
    buckets: list[list[Tensor]] = []
    n_numbers = 0
    for parameter in parameters:
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            fits = n_numbers + parameter.numel() <= _NUMBERS_PER_EXCHANGE
            if not (buckets and fits and buckets[-1][0].dtype == parameter.dtype):
                buckets.append([])
                n_numbers = 0
            buckets[-1].append(parameter.grad)
            n_numbers += parameter.numel()
    for bucket in buckets:
        _average(bucket)


def _average(tensors: Sequence[Tensor]) -> None:
    flat = reduce(torch.cat([tensor.flatten() for tensor in tensors]), "mean")
    sizes = [tensor.numel() for tensor in tensors]
    for tensor, mean in zip(tensors, flat.split(sizes), strict=True):
        tensor.copy_(mean.view_as(tensor))


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the processes that were launched together, and leave the group at the end.

    All wait for one another before they leave. A process that fails leaves at once: the others
    would wait for ever, and learn of it from the launcher or from their next exchange. Raises
    ConfigError when the launcher asks for weights spread in a way that is not known here.
    """
    shards = wants_sharding()
    with _without_plugin():
        state = PartialState(cpu=not torch.cuda.is_available())
        try:
            # With one process there is nobody to share with.
            n = state.num_processes
            yield Processes(n, state.process_index, shards and n > 1)
            if dist.is_initialized():
                dist.barrier()
        finally:
            state.destroy_process_group()


@contextmanager
def _without_plugin() -> Iterator[None]:
    """Keep what the launcher asked for from transformers and accelerate: `shard_base` does it."""
    asked = os.environ.pop("ACCELERATE_USE_FSDP", None)
    try:
        yield
    finally:
        if asked is not None:
            os.environ["ACCELERATE_USE_FSDP"] = asked
