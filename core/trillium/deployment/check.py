"""`trillium deploy check`: whether an adapter can be served, and what to do where it cannot."""

from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from trillium.deployment.adapter_files import AdapterFiles, read_adapter
from trillium.deployment.base_files import BaseFiles, find_base
from trillium.deployment.portable import Finding, check_finite, check_portable
from trillium.deployment.provenance import Provenance, read_provenance
from trillium.errors import BackendError, ConfigError
from trillium.policies.tokenizer import load_tokenizer

_PROBE = [{"role": "user", "content": "trillium probe"}]


def check_adapter(
    folder: Path, *, base: str | None = None, revision: str | None = None
) -> list[Finding]:
    """Check an adapter folder against the portable subset, its base, tokenizer and template.

    `base` and `revision` replace what the adapter names. Raises ConfigError where there is no LoRA
    adapter at all; everything else is a finding, all of them at once.
    """
    adapter = read_adapter(folder)
    found = [*check_portable(adapter), *check_finite(adapter)]
    name = base or adapter.base
    if not name:
        remedy = "name one with --base"
        return [*found, Finding("problem", f"adapter_config.json names no base; {remedy}")]
    try:
        record = read_provenance(folder)
        files = find_base(name, revision or adapter.revision)
    except (ConfigError, BackendError) as error:
        return [*found, Finding("problem", str(error))]
    found += _check_base(adapter, files, record)
    return found + _check_tokenizer(adapter, files)


def tokenizer_folder(adapter: Path, base: Path) -> Path:
    """Return where the tokenizer of an adapter is: its own folder, else that of its base."""
    has_own = (adapter / "tokenizer.json").is_file() or (adapter / "tokenizer.model").is_file()
    return adapter if has_own else base


def _check_base(adapter: AdapterFiles, base: BaseFiles, record: Provenance | None) -> list[Finding]:
    found = [_check_name(base)]
    if not base.weights:
        warning = f"{base.name}: is reachable, its weights are not here; shapes were not compared"
        return [*found, Finding("warning", warning)]
    found += _check_shapes(adapter, base)
    expected = record.base.weights_sha256 if record else None
    if expected is None:
        warning = "the base it was trained on is not recorded; its hash cannot be compared"
        return [*found, Finding("warning", warning)]
    if base.weights_sha256() == expected:
        return [*found, Finding("fine", f"base weights {expected[:12]}, as in training")]
    what = f"{base.name}: its weights are not those of training (sha256 {expected[:12]})"
    return [*found, Finding("problem", f"{what}; give that base with --base")]


def _check_name(base: BaseFiles) -> Finding:
    if Path(base.name).is_absolute():
        remedy = "render with a hub id or a shared folder as base"
        return Finding("warning", f"base {base.name}: is a path of this machine; {remedy}")
    return Finding("fine", f"base {base.name} ({base.model_type})")


def _check_shapes(adapter: AdapterFiles, base: BaseFiles) -> list[Finding]:
    known = base.shapes()
    found = []
    for layer, parts in adapter.layers().items():
        # What is saved from a class with a prefix of its own, such as "model.", may lack it.
        shape = known.get(f"{layer}.weight") or known.get(f"{layer}.weight".removeprefix("model."))
        if shape is None:
            found.append(Finding("problem", f"{layer}: the base has no such layer"))
        elif len(parts) == 2 and (parts["B"][0], parts["A"][1]) != shape:
            asked = (parts["B"][0], parts["A"][1])
            found.append(Finding("problem", f"{layer}: is {shape} in the base, not {asked}"))
    if len(found) > 3:
        rest = Finding("problem", f"and {len(found) - 3} more layers that do not fit the base")
        found = [*found[:3], rest]
    return found


def _check_tokenizer(adapter: AdapterFiles, base: BaseFiles) -> list[Finding]:
    folder = tokenizer_folder(adapter.folder, base.folder)
    try:
        tokenizer = load_tokenizer(str(folder))
        return _check_template(tokenizer, folder, base)
    except (ConfigError, BackendError) as error:
        return [Finding("problem", str(error))]


def _check_template(
    tokenizer: PreTrainedTokenizerBase, folder: Path, base: BaseFiles
) -> list[Finding]:
    whose = "the base's" if folder == base.folder else "its own"
    size = base.config.get("vocab_size")
    highest = max(tokenizer.get_vocab().values(), default=0)
    if isinstance(size, int) and highest >= size:
        what = f"the tokenizer gives token {highest:,} and the base knows {size:,}"
        return [Finding("problem", f"{folder}: {what}; copy the base's tokenizer there")]
    if not tokenizer.chat_template:
        what = f"{whose} tokenizer has no chat template"
        return [Finding("warning", f"{what}; only /v1/completions will work, add a template")]
    try:
        text = tokenizer.apply_chat_template(_PROBE, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        return [Finding("problem", f"{whose} chat template does not render ({error}); correct it")]
    if _PROBE[0]["content"] not in str(text):
        return [Finding("problem", f"{whose} chat template leaves the user's text out; correct it")]
    return [Finding("fine", f"{whose} tokenizer and chat template")]
