"""Which adapter is meant: an adapter folder, or the run that trained one."""

import json
from collections.abc import Iterable
from pathlib import Path

from trillium.errors import ConfigError

_CONFIG = "adapter_config.json"


def find_adapter(path: Path) -> Path:
    """Return the adapter folder that `path` means; of several in a run, the newest round's.

    Raises ConfigError when there is none, or when a run holds several and none is its result.
    """
    if (path / _CONFIG).is_file():
        return path
    if not path.is_dir():
        raise ConfigError(f"{path}: is no folder; give an adapter folder or a run folder")
    if (path / "adapter" / _CONFIG).is_file():
        return path / "adapter"
    found = _result_of_rounds(path) or [p.parent for p in path.rglob(_CONFIG) if _is_kept(p, path)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(folder.relative_to(path)) for folder in sorted(found)[:5])
        raise ConfigError(f"{path}: holds {len(found)} adapters ({names}); name the one you mean")
    what = "is a run that has not finished training" if (path / "run.json").is_file() else ""
    raise ConfigError(
        f"{path}: {what or 'holds no adapter'} (no {_CONFIG} below it); "
        "give the folder that training wrote"
    )


def _result_of_rounds(run: Path) -> list[Path]:
    """Return what the last round left that the manifest calls finished: promoted, or trained."""
    try:
        stages = json.loads((run / "run.json").read_text(encoding="utf-8"))["stages"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    promoted = run / f"round_{_last(stages, 'promote_')}" / "policy"
    trained = run / f"train_{_last(stages, 'train_')}" / "adapter"
    return [folder for folder in (promoted, trained) if (folder / _CONFIG).is_file()][:1]


def _last(stages: Iterable[str], prefix: str) -> int:
    """Return the highest round among the stages of this kind; 0 when there is none."""
    rounds = (stage.removeprefix(prefix) for stage in stages if stage.startswith(prefix))
    return max((int(number) for number in rounds if number.isdigit()), default=0)


def _is_kept(path: Path, run: Path) -> bool:
    """Leave out checkpoints and the work folders of unfinished stages."""
    parts = path.relative_to(run).parts
    return not any(part.startswith((".", "checkpoint-")) for part in parts)
