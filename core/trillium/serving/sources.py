"""What `trillium serve` is asked to serve: runs, adapter folders, adapters.yaml, or a bare base."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    of the tokenizer's own.
    """

    base: str
    adapters: dict[str, Path]
    revision: str | None = None
    chat_template: Path | None = None


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
    is what the adapters ask for of their own base. Raises ConfigError when two differ in their
    base or its revision, or share a name.
    """
    adapters: dict[str, Path] = {}
    bases: dict[str, str] = {}
    for target in targets:
        if Path(target).is_file():
            registry = _read_registry(Path(target))
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
    names = [base] if base else list(bases)
    if len(names) > 1:
        listed = ", ".join(f"{target} on {name}" for name, target in bases.items())
        raise ConfigError(f"adapters of several bases ({listed}); start one server for each base")
    if not names or not names[0]:
        raise ConfigError(f"{targets[0]}: names no base; give it with --base")
    revision = revision or _find_revision(names[0], adapters.values())
    return Sources(names[0], adapters, revision, chat_template)


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
    template = registry.base.chat_template
    return Sources(
        registry.base.source,
        folders,
        registry.base.revision,
        path.parent / template if template else None,
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
