"""What an ablation found: a row per arm, as numbers, for the terminal and for a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trillium.evaluation import Comparison, compare, pass_at_k_by_task
from trillium.report.arms import ArmsReport, render_arms, write_arms
from trillium.report.content import Cell, Headline, Table

from trillium_code.ablation import SeedResult
from trillium_code.ablation_config import AblationConfig
from trillium_code.label_quality import LabelQuality
from trillium_code.records import TaskResult
from trillium_code.summary import SpeedGain, measure_speed

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class ArmRow:
    """Hold one arm over all seeds.

    `gain` compares pass@1 per task, averaged over seeds; it is None when a seed gave no pair.
    `seed_gains` are the gains of single seeds, `plus` compares by the plus tests, where there are
    any. Seconds are per seed, without what arms share.
    """

    name: str
    n_pairs: tuple[int, ...]
    n_fast: int
    quality: LabelQuality
    gain: Comparison | None
    seed_gains: tuple[float, ...]
    speed: SpeedGain | None
    seconds: float
    plus: Comparison | None = None


def tabulate(results: Mapping[int, SeedResult]) -> list[ArmRow]:
    """Return a row per arm, in the order of the run file, over the seeds that finished it."""
    names = dict.fromkeys(name for seed in results.values() for name in seed.arms)
    return [_row(name, [seed for seed in results.values() if name in seed.arms]) for name in names]


def _row(name: str, seeds: Sequence[SeedResult]) -> ArmRow:
    arms = [seed.arms[name] for seed in seeds]
    quality = arms[0].quality
    for arm in arms[1:]:
        quality += arm.quality
    gain, plus, seed_gains = None, None, []
    if all(arm.after for arm in arms):
        before, after = [seed.before for seed in seeds], [arm.after for arm in arms]
        pairs = zip(map(_pass_at_1, before), map(_pass_at_1, after), strict=True)
        seed_gains = [compare(*_shared(old, new)).gain.mean for old, new in pairs]
        gain = _compare(before, after)
        if all(arm.plus_after for arm in arms):
            plus = _compare([seed.plus_before for seed in seeds], [arm.plus_after for arm in arms])
    return ArmRow(
        name,
        tuple(arm.n_pairs for arm in arms),
        sum(arm.n_fast for arm in arms),
        quality,
        gain,
        tuple(seed_gains),
        measure_speed([speed for arm in arms for speed in arm.speed]),
        sum(arm.seconds for arm in arms) / len(arms),
        plus,
    )


def render_table(rows: Sequence[ArmRow], *, n_tasks: int, n_seeds: int) -> "RichTable":
    """Return the closing table of an ablation; the report has all of its columns."""
    title = f"{n_tasks} held-out tasks, {n_seeds} seeds, pass@1"
    shown = ("arm", "labels right", "before", "after", "gain", "p", "by seed")
    return render_arms(title, _table(rows), shown=shown)


def write_results(config: AblationConfig, results: Mapping[int, SeedResult]) -> Path:
    """Write `ablation.json` and `report.html` into the output folder; returns the report."""
    rows = tabulate(results)
    report = ArmsReport(
        title="Code: selectors, objectives and pairs compared",
        subtitle=f"{config.run.policy.base}, {len(results)} seeds, one sampling for all arms",
        headlines=tuple(
            Headline(row.name, f"{row.gain.gain.mean:+.3f}", detail="gain of pass@1")
            for row in rows
            if row.gain is not None
        )[:4],
        section="Arms",
        settings=config.model_dump(mode="json"),
        command="trillium code ablate",
        seeds=tuple(results),
        shared_seconds=sum(seed.shared_seconds for seed in results.values()) / len(results),
    )
    return write_arms(config.output, "ablation.json", _table(rows), report)


def _table(rows: Sequence[ArmRow]) -> Table:
    if not any(row.plus for row in rows):
        return Table("pass@1", _COLUMNS, tuple(map(_cells, rows)), note=_NOTE)
    cells = tuple((*_cells(row), *_plus_cells(row.plus)) for row in rows)
    return Table("pass@1", (*_COLUMNS, *_PLUS_COLUMNS), cells, note=_NOTE)


_COLUMNS = (
    "arm",
    "pairs",
    "labels right",
    "inverted",
    "tasks paired",
    "before",
    "after",
    "gain",
    "p",
    "by seed",
    "speed-up",
    "seconds",
)
_PLUS_COLUMNS = ("before, plus tests", "after, plus tests", "gain, plus tests")
_NOTE = (
    "Labels are judged by hidden tests that no selector saw: right when the chosen program passes "
    "and the rejected one fails, inverted the other way round. Gains are paired over tasks, each "
    "averaged over seeds, with a bootstrap over tasks; p is from exchanging before and after."
)


def _cells(row: ArmRow) -> tuple[Cell, ...]:
    quality, gain = row.quality, row.gain
    fast = f" ({row.n_fast} fast)" if row.n_fast else ""
    return (
        row.name,
        " + ".join(map(str, row.n_pairs)) + fast,
        quality.share(quality.n_right),
        quality.share(quality.n_inverted),
        f"{quality.n_paired}/{quality.n_tasks}",
        gain.before if gain else None,
        gain.after if gain else None,
        gain.gain if gain else None,
        gain.permutation_p if gain else None,
        " ".join(f"{value:+.3f}" for value in row.seed_gains) or None,
        row.speed.speedup if row.speed else None,
        round(row.seconds, 1),
    )


def _plus_cells(plus: Comparison | None) -> tuple[Cell, ...]:
    return (plus.before, plus.after, plus.gain) if plus else (None, None, None)


def _compare(
    before: Sequence[Sequence[TaskResult]], after: Sequence[Sequence[TaskResult]]
) -> Comparison:
    """Compare pass@1 of each task, averaged over the seeds."""
    sides = (_mean([_pass_at_1(seed) for seed in side]) for side in (before, after))
    return compare(*_shared(*sides))


def _pass_at_1(results: Sequence[TaskResult]) -> dict[str, float]:
    return pass_at_k_by_task({found.task_id: found.judged for found in results if found.judged}, 1)


def _mean(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average each task over the seeds that have it."""
    tasks = dict.fromkeys(task for seed in seeds for task in seed)
    found = {task: [seed[task] for seed in seeds if task in seed] for task in tasks}
    return {task: sum(values) / len(values) for task, values in found.items()}


def _shared(
    old: Mapping[str, float], new: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    both = [task for task in old if task in new]
    return {task: old[task] for task in both}, {task: new[task] for task in both}
