"""What `trillium serve` is asked to serve: runs, adapter folders, adapters.yaml, or a bare base."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trillium.assets import ASSETS
from trillium.deployment.adapter_files import read_adapter
from trillium.deployment.locate import find_adapter
from trillium.deployment.registry import read_registry, verify_registry
from trillium.errors import ConfigError


@dataclass(frozen=True)
class Sources:
    """Hold the base to load and the adapters to put on it, by name.

    `revision` is the commit of a base on the hub, `chat_template` a Jinja file that takes the place
    of the tokenizer's own. The last three are what adapters.yaml says: what callers call the base,
    tokens of prompt and completion, adapters at once.
    """

    base: str
    adapters: dict[str, Path]
    revision: str | None = None
    chat_template: Path | None = None
    base_name: str | None = None
    max_length: int | None = None
    max_adapters: int | None = None


def find_sources(
    targets: Sequence[str],
    *,
    base: str | None,
    revision: str | None = None,
    chat_template: Path | None = None,
) -> Sources:
    """Find out which base and adapters `targets` mean: NAME=PATH, a path, or a base.

    An adapter without a name goes by that of its run or folder. A `base` that is given is meant
    with the `revision` that is given, not with that of adapters.yaml; where neither names one, it
    is what the adapters ask for of their own base. The first adapters.yaml has its say on names and
    limits. Raises ConfigError when two differ in their base or its revision, or share a name.
    """
    said: Sources | None = None
    adapters: dict[str, Path] = {}
    bases: dict[str, str] = {}
    for target in targets:
        if Path(target).is_file():
            registry = _read_registry(Path(target))
            said = said or registry
            if base is None:
                base, revision = registry.base, revision or registry.revision
            chat_template = chat_template or registry.chat_template
            _add(adapters, registry.adapters, target)
            continue
        if _is_base(target):
            bases[target] = target
            continue
        found = _find_adapters(target)
        _add(adapters, found, target)
        for folder in found.values():
            bases.setdefault(base or read_adapter(folder).base, target)
    base = base or _only(bases, targets[0])
    return replace(
        said or Sources(base, adapters),
        base=base,
        adapters=adapters,
        revision=revision or _find_revision(base, adapters.values()),
        chat_template=chat_template,
    )


def _only(bases: Mapping[str, str], target: str) -> str:
    if len(bases) > 1:
        listed = ", ".join(f"{target} on {name}" for name, target in bases.items())
        raise ConfigError(f"adapters of several bases ({listed}); start one server for each base")
    if not any(bases):
        raise ConfigError(f"{target}: names no base; give it with --base")
    return next(iter(bases))


def _add(adapters: dict[str, Path], found: Mapping[str, Path], target: str) -> None:
    for name, folder in found.items():
        if name in adapters:
            raise ConfigError(
                f"{target}: another adapter is called {name!r}; give it a name: NAME={folder}"
            )
        adapters[name] = folder


def _find_revision(base: str, folders: Iterable[Path]) -> str | None:
    """Return the commit of `base` that the adapters trained on it ask for, if any does."""
    trained = [adapter for adapter in map(read_adapter, folders) if adapter.base == base]
    revisions = sorted({adapter.revision for adapter in trained if adapter.revision})
    if len(revisions) > 1:
        raise ConfigError(
            f"adapters of several revisions of {base} ({', '.join(revisions)}); start one server "
            "for each, or name one with --revision"
        )
    return revisions[0] if revisions else None


def _read_registry(path: Path) -> Sources:
    registry = read_registry(path)
    verify_registry(registry, path.parent)
    folders = {each.name: path.parent / each.path for each in registry.adapters}
    base, template = registry.base, registry.base.chat_template
    return Sources(
        str((path.parent / base.source).resolve()) if base.is_relative else base.source,
        folders,
        base.revision,
        path.parent / template if template else None,
        base.name,
        registry.serving.max_length,
        registry.serving.max_adapters,
    )


def _find_adapters(target: str) -> dict[str, Path]:
    name, separator, path = target.partition("=")
    if separator and not Path(target).exists():
        return {name: find_adapter(Path(path))}
    given = Path(target)
    folder = find_adapter(given)
    return {
        given.resolve().parent.name if given.name == "adapter" else given.resolve().name: folder
    }


def _is_base(target: str) -> bool:
    if target in ASSETS:
        return True
    folder = Path(target)
    return (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file()
