"""`trillium deploy merge`: one model out of base and adapter, on the weights that training saw.

    W' = W + scaling * B A        scaling = alpha / r, for rsLoRA alpha / sqrt(r) (arXiv 2106.09685)

W is the base as the adapter met it: rounded to the dtype of training, or the 4-bit weights of NF4
unpacked again, because the update has learnt to correct exactly those. The sum is float32; rounding
it to bfloat16 loses updates below 2^-9 of a weight, so that is done only when asked for.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from trillium.assets import find_model
from trillium.deployment.adapter_files import WEIGHTS, AdapterFiles, read_adapter
from trillium.deployment.base_files import hash_weights
from trillium.deployment.check import tokenizer_folder
from trillium.deployment.portable import check_portable
from trillium.deployment.provenance import PROVENANCE, Provenance, read_provenance
from trillium.errors import ConfigError
from trillium.files import explain_failed_write, remove, write_atomically
from trillium.policies.config import Precision, Quantisation
from trillium.policies.load import load_base, resolve_dtype
from trillium.policies.tokenizer import load_tokenizer, quiet_libraries


def merge_adapter(
    folder: Path,
    output: Path,
    *,
    base: str | None = None,
    trained_in: Precision | None = None,
    quantisation: Quantisation | None = None,
    bfloat16: bool = False,
) -> str:
    """Write base plus adapter as a model of its own to `output`, and say onto what it was merged.

    How the base was loaded in training is read from the adapter's record; `trained_in` and
    `quantisation` say it for adapters without one. Raises ConfigError for an adapter that cannot
    be merged, a base that is not the one of training, and an `output` that is not empty.
    """
    quiet_libraries()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"{output}: is not empty; choose another folder")
    adapter, record = read_adapter(folder), read_provenance(folder)
    problems = [each.sentence for each in check_portable(adapter) if each.kind == "problem"]
    if problems:
        raise ConfigError(f"{folder}: is no plain LoRA ({problems[0]}); merge it with PEFT")
    source = find_model(base or adapter.base)
    _check_base(Path(source), record, adapter)
    # The adapter pins a commit of its own base; another repository has others.
    revision = adapter.revision if base in (None, adapter.base) else None
    kind = quantisation or (record.base.quantisation if record else "none")
    dtype = _training_dtype(trained_in, record)
    model = _load_dense(source, dtype, kind, revision)
    add_updates(model, adapter)
    if bfloat16:
        model = model.bfloat16()
    tokenizer = load_tokenizer(str(tokenizer_folder(folder, Path(source))), revision=revision)
    unfinished = output.with_name(f".{output.name}.part")
    with explain_failed_write(output):
        remove(unfinished)
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        if record is not None:
            write_atomically(unfinished / PROVENANCE, record.model_dump_json(indent=2) + "\n")
        remove(output)
        unfinished.replace(output)
    loaded = "unpacked NF4" if kind == "nf4" else str(dtype).removeprefix("torch.")
    known = "as recorded" if record else "which nothing records"
    return f"merged onto {base or adapter.base} in {loaded}, {known}; saved as {_saved(bfloat16)}"


@torch.no_grad()
def add_updates(model: PreTrainedModel, adapter: AdapterFiles) -> None:
    """Add the update of every layer to the float32 weights of `model`."""
    tensors = load_file(adapter.folder / WEIGHTS)
    for layer in adapter.layers():
        try:
            weight = model.get_submodule(layer).weight
        except AttributeError:
            raise ConfigError(
                f"{adapter.folder}: adapts {layer}, which the base has not; give its own base"
            ) from None
        assert isinstance(weight, torch.Tensor)
        a, b = (tensors[f"base_model.model.{layer}.lora_{part}.weight"].float() for part in "AB")
        update = adapter.scaling * (b @ a)
        if adapter.config.get("fan_in_fan_out"):
            update = update.T
        if update.shape != weight.shape:
            raise ConfigError(
                f"{adapter.folder}: {layer} is {tuple(weight.shape)} in the base, "
                f"not {tuple(update.shape)}; give its own base"
            )
        weight += update


def _load_dense(
    source: str, dtype: torch.dtype, kind: Quantisation, revision: str | None
) -> PreTrainedModel:
    """Load the base as in training, then widen it to float32."""
    model = load_base(source, dtype, kind, torch.device("cpu"), revision=revision)
    if kind == "nf4":
        model = model.dequantize()
        assert isinstance(model, PreTrainedModel)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    wide = torch.nn.Module.float(model)
    assert isinstance(wide, PreTrainedModel)
    return wide


def _check_base(source: Path, record: Provenance | None, adapter: AdapterFiles) -> None:
    expected = record.base.weights_sha256 if record else None
    if expected is not None and source.is_dir() and hash_weights(source) != expected:
        raise ConfigError(
            f"{source}: is not the base that {adapter.folder} was trained on "
            f"(sha256 {expected[:12]}); give that one with --base"
        )


def _training_dtype(trained_in: Precision | None, record: Provenance | None) -> torch.dtype:
    if trained_in is None and record is not None:
        found = getattr(torch, record.base.dtype, None)
        if isinstance(found, torch.dtype):
            return found
    return resolve_dtype(trained_in or "float32", torch.device("cpu"))


def _saved(bfloat16: bool) -> str:
    return "bfloat16" if bfloat16 else "float32"
