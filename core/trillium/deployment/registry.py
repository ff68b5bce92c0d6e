"""`adapters.yaml`: the one file that says which adapters are served, on which base, from where.

Paths are relative to the file. Everything that servers need is rendered from it; its hashes are
checked before anything is rendered or served.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trillium.config import dump_config, load_config
from trillium.deployment.adapter_files import read_adapter
from trillium.deployment.portable import check_portable, serving_rank
from trillium.errors import ConfigError
from trillium.files import write_atomically

_NAME = r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
_SHA256 = r"^[0-9a-f]{64}$"
_RELATIVE = ("./", "../")


class ServedBase(BaseModel):
    """The base that all adapters of the file share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=_NAME, description="what callers call it; also of the service")
    source: str = Field(min_length=1, description="hub id, or folder as the servers see it")
    revision: str | None = Field(default=None, description="commit of a hub id; pins the base")
    chat_template: Path | None = Field(
        default=None, description="Jinja file; null = that of the tokenizer"
    )
    gguf: Path | None = Field(default=None, description="the base as GGUF, for Ollama")

    @property
    def is_folder(self) -> bool:
        """Say whether the base lies on the servers' own disk; a relative path begins with a dot."""
        return self.is_relative or self.source.startswith("/")

    @property
    def is_relative(self) -> bool:
        """Say whether the base is a folder whose path is relative to the file."""
        return self.source.startswith(_RELATIVE)


class ServedAdapter(BaseModel):
    """One adapter and the proof that it is the one meant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=_NAME, description="what callers ask for")
    path: Path = Field(description="its folder")
    sha256: str = Field(pattern=_SHA256, description="of its adapter_model.safetensors")
    rank: int = Field(gt=0, description="its largest rank")
    uri: str | None = Field(
        default=None, description="hf://, s3:// or pvc:// copy, for KServe and Ray"
    )
    gguf: Path | None = Field(default=None, description="the adapter as GGUF, for Ollama")


class Serving(BaseModel):
    """How much a server takes, and where it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_length: int = Field(default=4096, gt=1, description="tokens of prompt and completion")
    max_adapters: int = Field(default=8, gt=0, description="adapters in one batch or in memory")
    replicas: int = Field(default=1, gt=0, description="pods or actors at least")
    max_replicas: int = Field(default=4, gt=0, description="pods or actors at most")
    gpus: int = Field(default=1, gt=0, description="of a replica")
    memory: str = Field(default="16Gi", pattern=r"^\d+(Mi|Gi)$", description="of a replica")
    namespace: str = Field(default="trillium", pattern=_NAME, description="of Kubernetes")
    claim: str = Field(
        default="adapters", pattern=_NAME, description="volume claim with the adapters' folders"
    )
    vllm_image: str = Field(default="vllm/vllm-openai:v0.33.0", description="GPU image")
    cpu_image: str | None = Field(
        default=None,
        description="an image of yours with trillium[service], for machines without GPU",
    )


class Registry(BaseModel):
    """The content of `adapters.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: ServedBase = Field(description="the base of all adapters")
    adapters: tuple[ServedAdapter, ...] = Field(min_length=1, description="what is served")
    serving: Serving = Field(default=Serving(), description="how it is served")

    @model_validator(mode="after")
    def _names_differ(self) -> "Registry":
        names = [self.base.name, *(adapter.name for adapter in self.adapters)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the name {twice[0]!r} is given twice; rename one")
        if self.serving.replicas > self.serving.max_replicas:
            raise ValueError("serving.replicas is above serving.max_replicas; lower it")
        return self

    @property
    def max_rank(self) -> int:
        """Return the --max-lora-rank that takes every adapter."""
        return serving_rank(max(adapter.rank for adapter in self.adapters))


def read_registry(path: Path) -> Registry:
    """Read `adapters.yaml`; raises ConfigError with every mistake and its line."""
    return load_config(Registry, path)


def verify_registry(registry: Registry, folder: Path) -> None:
    """Compare every adapter on disk, and the chat template, with what the file says of it.

    `folder` is that of the file. Raises ConfigError with all that differs.
    """
    problems = []
    for entry in registry.adapters:
        try:
            adapter = read_adapter(folder / entry.path)
        except ConfigError as error:
            problems.append(str(error))
            continue
        if adapter.sha256() != entry.sha256:
            problems.append(f"{entry.name}: sha256 of {entry.path} is {adapter.sha256()}")
        if adapter.rank != entry.rank:
            problems.append(f"{entry.name}: rank is {adapter.rank}, not {entry.rank}")
        found = check_portable(adapter)
        problems += [f"{entry.name}: {each.sentence}" for each in found if each.kind == "problem"]
    if registry.base.chat_template is not None:
        try:
            read_template(folder / registry.base.chat_template)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        lines = "\n  ".join(problems)
        raise ConfigError(
            f"adapters.yaml does not describe what is on disk:\n  {lines}\n"
            "  register again what changed knowingly: trillium deploy add NAME FOLDER"
        )


def read_template(path: Path) -> str:
    """Return the text of a chat template; raises ConfigError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: is no chat template ({error}; a Jinja file was expected); check the path"
        ) from error


def register(
    path: Path, name: str, adapter_folder: Path, *, base: Mapping[str, object] | None
) -> Registry:
    """Add an adapter to `path`, or replace the one of its name; creates the file with `base`.

    Raises ConfigError when it cannot be served, or a new file gets no base, or an old one another.
    """
    adapter = read_adapter(adapter_folder)
    problems = [each.sentence for each in check_portable(adapter) if each.kind == "problem"]
    if problems:
        raise ConfigError(
            f"{adapter_folder}: cannot be served ({'; '.join(problems)}); "
            f"`trillium deploy check {adapter_folder}` says what to do"
        )
    entry = {
        "name": name,
        "path": _relative(adapter_folder, path.parent),
        "sha256": adapter.sha256(),
        "rank": adapter.rank,
    }
    known = read_registry(path) if path.is_file() else None
    given = _place_beside(path, base or {})
    if known is not None:
        _check_base(path, known.base, given)
    elif not {"name", "source"} <= given.keys():
        raise ConfigError(f"{path}: does not exist yet; name its base with --base-name and --base")
    kept = [each for each in known.adapters if each.name != name] if known else []
    values = {
        "base": known.base.model_dump(mode="json") if known else given,
        "adapters": [*(each.model_dump(mode="json") for each in kept), entry],
        "serving": (known.serving if known else Serving()).model_dump(mode="json"),
    }
    try:
        registry = Registry.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: {name!r} cannot be added ({place}: {first['msg']})") from None
    write_atomically(path, dump_config(registry))
    return registry


def _check_base(path: Path, known: ServedBase, given: Mapping[str, object]) -> None:
    """Raise ConfigError where a base is given that is not the one of the file."""
    written = known.model_dump(mode="json")
    differing = [
        f"{key} {written.get(key)!r}, not {value!r}"
        for key, value in given.items()
        if written.get(key) != value
    ]
    if differing:
        raise ConfigError(
            f"{path}: its base has {' and '.join(differing)} (all adapters of a file share one); "
            "leave the options out, change the file, or name another with --registry"
        )


def _place_beside(path: Path, base: Mapping[str, object]) -> dict[str, object]:
    """Return a base whose source, where it is relative, is relative to the file `path`."""
    source = str(base.get("source", ""))
    if not source.startswith(_RELATIVE):
        return dict(base)
    moved = _relative(Path(source), path.parent)
    return {**base, "source": moved if moved.startswith("../") else f"./{moved}"}


def _relative(folder: Path, start: Path) -> str:
    return Path(os.path.relpath(folder.resolve(), start.resolve())).as_posix()
