"""Where a run computes: on the GPU where there is one, or on the processor.

Logs, histories, pools, lists and files lie in ordinary memory. A model moves the histories and
batches that it is given to its own device; what recommenders and pools return is back in memory.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn
from trillium.errors import ConfigError

from trillium_rec.config import Device

Module = TypeVar("Module", bound=nn.Module)


def choose_device(wanted: Device) -> torch.device:
    """Return the device of a run; raises ConfigError when a GPU is wanted and none is visible."""
    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        raise ConfigError(
            "device=cuda needs a GPU and none is visible; set device=auto, or cpu, to run on this "
            "machine"
        )
    if wanted == "cpu" or not has_gpu:
        return torch.device("cpu")
    # Without a workspace of fixed size cuBLAS refuses to add in one order, as training asks it to.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda")


def place_on(device: torch.device, model: Module) -> Module:
    """Move a model in place and return it, with its own type."""
    nn.Module.to(model, device)
    return model


@contextmanager
def own_draws(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators of processor and device; leave them as they were found."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
