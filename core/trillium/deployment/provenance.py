"""`provenance.json` beside an adapter: the base it was trained on, how, and on what.

Written when training ends, so that an adapter that has left its run folder can still be checked
against its base, merged onto the weights it saw, and described. Same training, same bytes.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from trillium.deployment.adapter_files import read_adapter
from trillium.deployment.base_files import hash_weights
from trillium.deployment.portable import Finding, check_portable
from trillium.errors import ConfigError
from trillium.files import write_atomically

log = logging.getLogger(__name__)

PROVENANCE = "provenance.json"


class BaseRecord(BaseModel):
    """The base as training had it; `weights_sha256` is None where it came from no folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    model_type: str
    dtype: str
    quantisation: Literal["none", "nf4"]
    weights_sha256: str | None
    revision: str | None = None


class Provenance(BaseModel):
    """What an adapter was trained on and how; `identity` hashes trees, reference and settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: BaseRecord
    method: dict[str, object]
    reference: str | None
    identity: str
    n_examples: int


def record_provenance(
    adapter: Path,
    policy: nn.Module,
    *,
    method: dict[str, object],
    reference: str | None,
    identity: str,
    n_examples: int,
) -> list[Finding]:
    """Write `provenance.json` into an adapter folder, and return what keeps it from being served.

    Does nothing, and finds nothing, where a whole model was saved.
    """
    if not (adapter / "adapter_config.json").is_file():
        return []
    files = read_adapter(adapter)
    record = Provenance(
        base=_describe_base(policy, files.base),
        method=method,
        reference=reference,
        identity=identity,
        n_examples=n_examples,
    )
    write_atomically(adapter / PROVENANCE, record.model_dump_json(indent=2) + "\n")
    return [finding for finding in check_portable(files) if _is_problem(finding)]


def warn_unservable(adapter: Path) -> None:
    """Log what keeps a saved adapter from being served; asked of each that training leaves."""
    warn_of(adapter, [each for each in check_portable(read_adapter(adapter)) if _is_problem(each)])


def warn_of(adapter: Path, problems: Sequence[Finding]) -> None:
    """Log one sentence per problem."""
    for problem in problems:
        log.warning("%s: servers will refuse it: %s", adapter, problem.sentence)


def _is_problem(finding: Finding) -> bool:
    return finding.kind == "problem"


def read_provenance(adapter: Path) -> Provenance | None:
    """Read the record of an adapter folder; None where there is none, as with PEFT's own.

    Raises ConfigError when it is damaged.
    """
    path = adapter / PROVENANCE
    try:
        return Provenance.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{path}: is damaged ({place}: {first['msg']}); remove it, or train again"
        ) from None


def _describe_base(policy: nn.Module, name: str) -> BaseRecord:
    find_base = getattr(policy, "get_base_model", None)
    base = find_base() if callable(find_base) else policy
    config = getattr(base, "config", None)
    folder = Path(str(getattr(config, "_name_or_path", "") or ""))
    is_quantised = any("4bit" in type(module).__name__ for module in base.modules())
    return BaseRecord(
        name=name,
        model_type=str(getattr(config, "model_type", "")),
        dtype=_dtype_of(base),
        quantisation="nf4" if is_quantised else "none",
        weights_sha256=hash_weights(folder) if folder.is_absolute() and folder.is_dir() else None,
        revision=getattr(config, "_commit_hash", None),
    )


def _dtype_of(base: nn.Module) -> str:
    """Return the floating dtype of the frozen weights; adapters are float32 whatever it is."""
    for name, parameter in base.named_parameters():
        if "lora_" not in name and parameter.dtype.is_floating_point:
            return str(parameter.dtype).removeprefix("torch.")
    return str(torch.float32).removeprefix("torch.")
