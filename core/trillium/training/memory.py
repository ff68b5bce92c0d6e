"""How much memory `trillium train` will take on the processor, found before a model is loaded.

The decoder is walked with tensors that have a shape and no data: what autograd keeps of the
largest row batch is counted exactly, for any architecture the library can score. The rest is
arithmetic. Counted for objectives on log-probabilities; hidden states of all layers, which
`sparsepo` reads, come on top. On a GPU the allocator decides, and nothing is predicted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from trillium.policies.adapters import add_adapter
from trillium.policies.config import PolicyConfig
from trillium.policies.fused import fuse_layers
from trillium.policies.load import resolve_dtype
from trillium.scoring.forward import hidden_at_slots, open_model
from trillium.scoring.head import CHUNKS
from trillium.scoring.layout import declared_reason
from trillium.training.config import TrainConfig
from trillium.training.sampler import Split, StepSampler
from trillium.training.steps import MICRO_TOKENS, Sample, StepCollator
from trillium.tree_batch import TreeBatch
from trillium.trees import Layout, TokenTree

# Resident after torch, transformers, peft and the trainer are loaded, as measured on Linux.
_LIBRARIES = 640 * 2**20
# What the C library's allocator holds over what lives in it: freed blocks between kept ones.
# Without such holes (MALLOC_MMAP_THRESHOLD_=262144) a step takes 1.45 times as long.
_HOLES = 1.6
# Steps whose row batches are looked at: those with the longest trees.
_N_STEPS = 16


@dataclass(frozen=True)
class MemoryPlan:
    """Hold the parts of the peak, in bytes; `n_tokens` is the size of the largest row batch.

    `adapter` counts weights, gradients and both moments of AdamW; `kept` is what autograd keeps for
    the backward pass, `working` what one layer and the head need while they compute.
    """

    libraries: int
    weights: int
    loading: int
    adapter: int
    kept: int
    working: int
    n_tokens: int

    @property
    def peak(self) -> int:
        """Return the largest resident size: while training, or while the weights are loaded."""
        training = self.weights + self.adapter + self.activations
        return self.libraries + max(training, self.weights + self.loading)

    @property
    def activations(self) -> int:
        """Return what the largest row batch takes, the allocator's holes included."""
        return round(_HOLES * (self.kept + self.working))

    def describe(self) -> str:
        """Return the peak and its parts in one line."""
        parts = {
            "libraries": self.libraries,
            "weights": self.weights,
            "adapter and optimizer": self.adapter,
            f"activations of {self.n_tokens:,} tokens": self.activations,
        }
        shown = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in parts.items())
        return f"memory: about {self.peak / 2**30:.2f} GiB at the peak ({shown})"


def plan_memory(
    policy: PolicyConfig, train: TrainConfig, trees: Sequence[TokenTree], source: Path
) -> MemoryPlan | None:
    """Predict the peak of a run on the processor.

    None where there is a GPU, where the base is not a folder here, and for quantised weights.
    """
    is_known = (source / "config.json").is_file() and policy.quantisation == "none"
    if torch.cuda.is_available() or not is_known:
        return None
    dtype = resolve_dtype(policy.dtype, torch.device("cpu"))
    config = AutoConfig.from_pretrained(source, local_files_only=True)
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, dtype=dtype)
        fuse_layers(base, norms=False)
        model = add_adapter(base, policy.lora, base_name=policy.base, seed=0)
    is_padded = train.layout == "padded" or declared_reason(model) is not None
    rows = _largest_rows(train, trees, "padded" if is_padded else "shared")
    with FakeTensorMode(allow_non_fake_inputs=True):
        _give_shapes(model)
        kept, largest = _walk(model, rows)
    weights = sum(p.nbytes for p in model.parameters() if not p.requires_grad)
    adapter = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    files = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    if train.gradient_checkpointing:
        n_layers = int(getattr(config.get_text_config(), "num_hidden_layers", 1))
        inputs = n_layers * rows.input_ids.numel() * _width(config) * dtype.itemsize
        kept = inputs + kept // n_layers
    return MemoryPlan(
        libraries=_LIBRARIES,
        weights=weights,
        loading=files,
        adapter=4 * adapter,
        kept=kept,
        working=max(_head_bytes(rows, config, dtype), 3 * largest),
        n_tokens=rows.input_ids.numel(),
    )


def _largest_rows(train: TrainConfig, trees: Sequence[TokenTree], layout: Layout) -> TreeBatch:
    """Return the row batch with the most tokens among the steps with the longest trees."""
    lengths = [tree.n_tokens for tree in trees]
    split = Split(train.per_device_train_batch_size, train.gradient_accumulation_steps)
    steps = list(StepSampler(lengths, split, order=train.order, seed=train.seed))
    steps.sort(key=lambda step: -max((lengths[index] for index in step), default=0))
    budget = train.micro_tokens or MICRO_TOKENS["cpu"]
    collate = StepCollator(layout, pad_id=0, micro_tokens=budget)
    batches = (
        rows
        for step in islice(steps, _N_STEPS)
        for rows in collate([Sample(trees[index]) for index in step]).rows
    )
    return max(batches, key=lambda rows: rows.input_ids.numel())


def _give_shapes(model: nn.Module) -> None:
    """Put tensors of the processor that have no data in the place of every weight and buffer."""
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            empty = torch.empty(weight.shape, dtype=weight.dtype, device="cpu")
            setattr(module, name, nn.Parameter(empty, requires_grad=weight.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu"))
    tie = getattr(model, "tie_weights", None)
    if callable(tie):
        tie()


def _walk(model: nn.Module, rows: TreeBatch) -> tuple[int, int]:
    """Return the bytes autograd keeps of a forward pass, and those of the largest tensor kept."""
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        # Keeping the tensor keeps its address from being given to another.
        if tensor.untyped_storage()._cdata not in own:
            kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    model.train()
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with torch.enable_grad(), hooks:
        hidden = hidden_at_slots(open_model(model), rows)
    sizes = [tensor.untyped_storage().nbytes() for tensor in kept.values()]
    return sum(sizes) + hidden.nbytes, max(sizes)


def _head_bytes(rows: TreeBatch, config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Return the buffers of one chunk of logits, narrow and float32, and the kept slopes."""
    text = config.get_text_config()
    n_slots = len(rows.target)
    chunk = min(CHUNKS["cpu"], n_slots) * int(text.vocab_size)
    precise = 0 if dtype == torch.float32 else 4
    return chunk * (dtype.itemsize + precise) + n_slots * _width(config) * dtype.itemsize


def _width(config: PreTrainedConfig) -> int:
    return int(config.get_text_config().hidden_size)
