"""Base weights spread over processes: each keeps a share of every layer (torch's FSDP2).

A layer's frozen weights are gathered before it computes and freed behind it, in the backward pass
once more. All else stays whole and equal in every process: adapters, heads, embeddings, the final
norm. So what trains, is clipped, saved and resumed is what it is without sharding, to the bit.

Each gathering waits for all processes, so all of them must take equally many passes.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from trillium.errors import ConfigError
from trillium.policies.config import PolicyConfig
from trillium.scoring.forward import open_model
from trillium.training.config import TrainConfig
from trillium.tree_batch import TreeBatch


def check_shardable(policy: PolicyConfig, train: TrainConfig) -> None:
    """Raise ConfigError for what cannot be done with weights that are spread over processes."""
    if policy.quantisation != "none":
        raise ConfigError(
            f"policy.quantisation={policy.quantisation}: 4-bit weights cannot be spread over "
            "processes (their scales would stay behind); set policy.quantisation=none, or launch "
            "without --use_fsdp"
        )
    if policy.attention == "flex":
        raise ConfigError(
            "policy.attention=flex: weights that are spread over processes are computed with sdpa; "
            "set policy.attention=auto, or launch without --use_fsdp"
        )
    if train.overoptimisation_steps is not None:
        raise ConfigError(
            f"train.overoptimisation_steps={train.overoptimisation_steps}: replies cannot be "
            "sampled while weights are spread over processes (each token would gather them all); "
            "remove it, or launch without --use_fsdp"
        )


def shard_base(policy: nn.Module) -> None:
    """Spread the frozen weights of the decoder's layers; the policy moves to its own device.

    Works layer by layer: a device never holds more than one whole layer. Raises ConfigError for a
    decoder without a list of layers, or whose layers share weights.
    """
    device = PartialState().device
    decoder = open_model(policy).decoder
    layers = _find_layers(decoder)
    # The adapter of a reference is frozen too, and stays whole: it is copied, compared and named.
    frozen = [
        {p for name, p in layer.named_parameters() if not p.requires_grad and "lora_" not in name}
        for layer in layers
    ]
    uses = Counter(id(p) for each in frozen for p in each)
    if not uses or max(uses.values()) > 1:
        raise ConfigError(
            f"model {type(decoder).__name__}: its layers share weights or have none that are "
            "frozen (needs layers with weights of their own to spread them); launch without "
            "--use_fsdp"
        )
    spread = set().union(*frozen)
    whole = {p for p in policy.parameters() if p not in spread}
    for tensor in chain(whole, policy.buffers()):
        tensor.data = tensor.data.to(device)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    # The decoder is what scoring calls: from there the gathering of layers is planned ahead. It
    # keeps its class, by which transformers knows what hidden states to record.
    kind = type(decoder)
    fully_shard(decoder, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    decoder.__class__ = kind


def is_sharded(policy: nn.Module) -> bool:
    """Say whether weights of the policy are spread over processes."""
    return any(isinstance(parameter, DTensor) for parameter in policy.parameters())


def even_out(
    rows: Sequence[TreeBatch], spare: Sequence[TreeBatch]
) -> Iterator[tuple[TreeBatch, bool]]:
    """Yield each row batch with True; then a spare one with False, while others still compute.

    Without a spare one no weights are spread, and nobody waits for anybody.
    """
    n_idle = largest(len(rows)) - len(rows) if spare else 0
    yield from ((each, True) for each in rows)
    yield from ((spare[0], False) for _ in range(n_idle))


def any_process(answer: bool) -> bool:
    """Say whether any process answers yes; all of them must call it."""
    return largest(int(answer)) == 1


def largest(number: int) -> int:
    """Return the largest of the numbers that the processes give; all of them must call it."""
    shared = torch.tensor(number, device=PartialState().device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return int(shared.item())


def _find_layers(decoder: nn.Module) -> list[nn.Module]:
    """Return the modules of the list that holds most of the decoder's weights."""
    lists = [list(module) for module in decoder.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ConfigError(
            f"model {type(decoder).__name__}: has no list of layers (needs one to spread its "
            "weights over processes); launch without --use_fsdp"
        )
    return max(
        lists, key=lambda layers: sum(p.numel() for each in layers for p in each.parameters())
    )
