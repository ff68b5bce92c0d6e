"""What `trillium diagnose` is pointed at: a preference file, or a run folder with all it holds.

Runs of every application are read by what their files hold, not by who wrote them: metrics of
steps, pairs as text, as tokens or as trees, and the newest adapter.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from trillium.diagnostics.config import check_target
from trillium.errors import ConfigError
from trillium.manifest import read_manifest
from trillium.objectives.table import OBJECTIVES
from trillium.tokenize_config import TokenizeConfig
from trillium.yamlfile import read_yaml

_PAIR_MARKS = (
    frozenset({"chosen", "rejected"}),
    frozenset({"prompt_ids", "chosen_ids", "rejected_ids"}),
    frozenset({"nodes", "leaves"}),
)
_DEFAULT_BASE = "smollm2-135m-instruct"
_TOKENIZE = TokenizeConfig()


@dataclass(frozen=True)
class Source:
    """Say what there is to diagnose, and how the run was set up.

    `reference` is the adapter that training was held to, None for the bare base. `metrics` are the
    files with one row per optimizer step, oldest first; `objective` and `beta` are those of the
    run, None for a file that nobody trained on yet, and `beta` for objectives without DPO's.
    `tokenize` is how the run made tokens of its rows.
    """

    name: str
    pairs: Path | None
    held_out: Path | None = None
    adapter: Path | None = None
    reference: Path | None = None
    base: str = _DEFAULT_BASE
    metrics: tuple[Path, ...] = ()
    objective: str | None = None
    beta: float | None = None
    tokenize: TokenizeConfig = _TOKENIZE


def find_source(target: Path) -> Source:
    """Return what `target` holds; raises DataError when it is neither a run nor a file."""
    if target.is_file():
        return Source(target.name, target)
    check_target(target)
    return _read_run(target)


def _read_run(folder: Path) -> Source:
    read_manifest(folder)
    settings = read_yaml(folder / "config.yaml").values
    config = settings if isinstance(settings, dict) else {}
    recipe = config if "objective" in config else _section(config, "align")
    objective, data = _section(recipe, "objective"), _section(config, "data")
    policy = _section(config, "policy")
    adapters = sorted(
        (path for path in _outputs(folder, "adapter_config.json") if _is_final(path)), key=_age
    )
    pairs = _path(data.get("path")) or _newest_pairs(folder)
    name = objective.get("name")
    return Source(
        name=str(folder),
        pairs=pairs,
        held_out=_path(data.get("held_out")),
        adapter=adapters[-1].parent if adapters else None,
        reference=_reference(config, [path.parent for path in adapters]),
        base=str(policy.get("base", _DEFAULT_BASE)),
        metrics=tuple(sorted(_outputs(folder, "metrics.jsonl"), key=_age)),
        objective=name if isinstance(name, str) else None,
        beta=_beta(objective),
        tokenize=_tokenize(folder / "config.yaml", _section(data, "tokenize")),
    )


def _section(values: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _tokenize(path: Path, values: Mapping[str, object]) -> TokenizeConfig:
    try:
        return TokenizeConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name, what = f"data.tokenize.{first['loc'][0]}", first["msg"].lower()
        raise ConfigError(
            f"{path}: {name} = {first['input']!r}: {what}; correct it as the run had it"
        ) from None


def _path(value: object) -> Path | None:
    return Path(value) if isinstance(value, str) else None


def _outputs(folder: Path, pattern: str) -> list[Path]:
    """Return files of a run; what hidden folders hold is unfinished."""
    found = folder.rglob(pattern)
    return [path for path in found if not _is_apart(path.relative_to(folder))]


def _is_apart(path: Path) -> bool:
    return any(part.startswith(".") or part == "diagnosis" for part in path.parts)


def _age(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, str(path)


def _beta(objective: Mapping[str, object]) -> float | None:
    """Return beta where it means what it does in DPO: a factor of a sum of log-ratios."""
    row, beta = OBJECTIVES.get(str(objective.get("name"))), objective.get("beta")
    if row is None or not row.needs.reference or row.needs.lengths:
        return None
    return float(beta) if isinstance(beta, int | float) else None


def _reference(config: Mapping[str, object], adapters: Sequence[Path]) -> Path | None:
    """Return the adapter of the reference: as the run file says, else that of the round before."""
    kind = str(config.get("reference", ""))
    start = _path(_section(config, "policy").get("adapter"))
    if kind.startswith("adapter:"):
        return Path(kind.removeprefix("adapter:"))
    if kind in ("base", "none"):
        return None
    return adapters[-2] if len(adapters) > 1 and not kind else start


def _is_final(path: Path) -> bool:
    return not any(part.startswith("checkpoint-") for part in path.parts)


def _newest_pairs(folder: Path) -> Path | None:
    found = [path for path in _outputs(folder, "*.jsonl") if holds_pairs(path)]
    return max(found, key=_age) if found else None


def holds_pairs(path: Path) -> bool:
    """Say whether the first row of a file is a pair, as text, as tokens or as a tree."""
    try:
        with path.open(encoding="utf-8") as stream:
            row = json.loads(stream.readline())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(row, dict) and any(marks <= row.keys() for marks in _PAIR_MARKS)


def require_pairs(source: Source) -> Path:
    """Return the file of pairs; raises ConfigError when the run keeps none."""
    if source.pairs is None:
        raise ConfigError(
            f"{source.name}: keeps no pairs (needs a file of chosen and rejected responses); "
            "give the preference file itself with --pairs"
        )
    return source.pairs
