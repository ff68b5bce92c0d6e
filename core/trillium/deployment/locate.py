"""Which adapter is meant: an adapter folder, or the run that trained one."""

from collections.abc import Sequence
from pathlib import Path

from trillium.errors import ConfigError
from trillium.manifest import Manifest, read_manifest

_CONFIG = "adapter_config.json"
_ROUNDS = {"promote_": "round_{}/policy", "train_": "train_{}/adapter"}


def find_adapter(path: Path) -> Path:
    """Return the adapter folder that `path` means; of several in a run, the newest round's.

    Raises ConfigError when there is none, when the last command of a run was stopped, so that it
    has no result yet, or when a run holds several and none is its result; DataError when its
    run.json is damaged.
    """
    if (path / _CONFIG).is_file():
        return path
    if not path.is_dir():
        raise ConfigError(f"{path}: is no folder; give an adapter folder or a run folder")
    manifest = read_manifest(path) if (path / "run.json").is_file() else None
    if manifest is not None and manifest.is_stopped:
        held = _adapters(path)
        raise ConfigError(
            f"{path}: is a run whose last command has not come to its end; start it again"
            + (f", or name the adapter you mean ({_names(held, path)})" if held else "")
        )
    if (path / "adapter" / _CONFIG).is_file():
        return path / "adapter"
    found = (_result_of_rounds(path, manifest) if manifest else []) or _adapters(path)
    if not found:
        raise ConfigError(
            f"{path}: holds no adapter (no {_CONFIG} below it); give the folder that training wrote"
        )
    if len(found) > 1:
        names = _names(found, path)
        raise ConfigError(f"{path}: holds {len(found)} adapters ({names}); name the one you mean")
    return found[0]


def _result_of_rounds(run: Path, manifest: Manifest) -> list[Path]:
    """Return what the last round of the last command left: promoted, or trained."""
    for prefix, folder in _ROUNDS.items():
        names = (stage for stage in manifest.current if stage.startswith(prefix))
        rounds = [int(n) for name in names if (n := name.removeprefix(prefix)).isdigit()]
        if rounds and (run / folder.format(max(rounds)) / _CONFIG).is_file():
            return [run / folder.format(max(rounds))]
    return []


def _adapters(path: Path) -> list[Path]:
    """Return all adapters below a folder, less checkpoints and unfinished stages."""
    return sorted(
        file.parent
        for file in path.rglob(_CONFIG)
        if not any(part.startswith((".", "checkpoint-")) for part in file.relative_to(path).parts)
    )


def _names(folders: Sequence[Path], run: Path) -> str:
    return ", ".join(str(folder.relative_to(run)) for folder in folders[:5])
