"""What run folders hold, as text: one line each, one in full, or how several differ."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trillium.errors import ConfigError, DataError
from trillium.manifest import read_manifest
from trillium.progress import format_duration
from trillium.yamlfile import read_yaml


@dataclass(frozen=True)
class RunFacts:
    """Hold what a run folder says of itself: settings by dotted key, figures by stage."""

    folder: Path
    settings: Mapping[str, str]
    figures: Mapping[str, int | float]


def read_runs(folders: Sequence[Path]) -> list[RunFacts]:
    """Read the runs to compare.

    Raises ConfigError for fewer than two folders, DataError when one is no run.
    """
    if len(folders) < 2:
        raise ConfigError("runs compare: needs at least two run folders; name another one")
    found = []
    for folder in folders:
        manifest = read_manifest(folder)
        settings = dict(flatten(read_yaml(folder / "config.yaml").values))
        settings["seed"] = str(manifest.seed)
        figures: dict[str, int | float] = {}
        for name, record in manifest.current.items():
            figures[f"{name}: seconds"] = record.seconds
            figures |= {f"{name}: {key}": value for key, value in record.counts.items()}
        found.append(RunFacts(folder, settings, figures))
    return found


def summarise(folder: Path) -> str:
    """Return one line: folder, seed, finished and unfinished stages, time; or what is damaged."""
    try:
        manifest = read_manifest(folder)
    except DataError as error:
        return str(error)
    stages = ", ".join(manifest.current) or "nothing finished"
    begun = ", ".join(name for name in manifest.attempts)
    unfinished = f"; unfinished: {begun}" if begun else ""
    seconds = format_duration(sum(record.seconds for record in manifest.current.values()))
    return f"{folder}  seed {manifest.seed}  {seconds}  {stages}{unfinished}"


def describe(folder: Path) -> str:
    """Return the stages of a run with seconds, counts and outputs, then its environment."""
    manifest = read_manifest(folder)
    lines = [f"{folder} (seed {manifest.seed})"]
    for name, record in manifest.current.items():
        counts = "  ".join(f"{key} {_figure(value)}" for key, value in record.counts.items())
        lines.append(
            f"  {name:12} done in {format_duration(record.seconds):>12}  {counts}".rstrip()
        )
        for output, sha256 in record.outputs.items():
            state = "" if (folder / output).exists() else "  MISSING"
            lines.append(f"    {output}  sha256 {sha256[:12]}{state}")
    lines += [f"  {name:12} unfinished" for name in manifest.attempts]
    environment = folder / "environment.json"
    if environment.exists():
        lines += _describe_environment(environment)
    return "\n".join(lines)


def _describe_environment(path: Path) -> list[str]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        packages = "  ".join(f"{name} {version}" for name, version in facts["packages"].items())
        return [
            f"  {facts['processor']}, {facts['n_cpus']} cores, Python {facts['python']}",
            f"  commit {facts['git_commit'] or 'unknown'}  {packages}",
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return [f"  {path.name} is damaged"]


def compare(folders: Sequence[Path]) -> str:
    """Return a table of the settings and the figures in which the runs differ.

    Raises ConfigError for fewer than two folders, DataError when one is no run.
    """
    runs = read_runs(folders)
    header = ["", *(str(folder) for folder in folders)]
    settings = [run.settings for run in runs]
    figures = [{name: _figure(value) for name, value in run.figures.items()} for run in runs]
    rows = [header, *differing(settings), *differing(figures)]
    if len(rows) == 1:
        return "no differences in settings or figures"
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def differing(columns: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """Return a row per name whose values are not all equal: the name, then every value."""
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [[name, *(column.get(name, "-") for column in columns)] for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def flatten(value: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every value of nested settings as text, under its key.path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, json.dumps(value, ensure_ascii=False)


def _figure(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
