"""What an alignment experiment found: a row per arm, as numbers and for the terminal."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from trillium.evaluation import Interval, format_interval

from trillium_rec.alignment.ablation import SeedResult
from trillium_rec.alignment.ablation_config import AblationConfig
from trillium_rec.alignment.measures import Measured
from trillium_rec.alignment.rule import (
    Verdict,
    coverage_change,
    judge_arm,
    mean_over_users,
    relative_change,
    seed_gains,
)

if TYPE_CHECKING:
    from rich.table import Table as RichTable

COLUMNS = (
    "arm",
    "oracle",
    "judge",
    "reward model",
    "R@10",
    "R@50",
    "coverage",
    "rule",
)


@dataclass(frozen=True)
class ArmRow:
    """Hold one arm over all seeds against the seed model; the seed model's own row has no verdict.

    `oracle`, `judge` and `reward` are gains for other arms and values for the seed model; `recalls`
    relative changes, or values. `coverage` is that of lists and of sessions.
    """

    name: str
    rewards: Mapping[str, Interval]
    recalls: Mapping[str, Interval]
    coverage: tuple[float, float]
    verdict: Verdict | None
    oracle_by_seed: tuple[float, ...]
    seconds: float


def tabulate(results: Mapping[int, SeedResult]) -> list[ArmRow]:
    """Return a row per arm, in the order of the run file, the seed model first."""
    seeds = {seed: found.measured for seed, found in results.items()}
    first = next(iter(seeds.values()))
    return [_row(name, seeds, results) for name in first]


def _row(
    name: str, seeds: Mapping[int, Mapping[str, Measured]], results: Mapping[int, SeedResult]
) -> ArmRow:
    known = next(iter(seeds.values()))[name].values
    rewards = [each for each in ("oracle", "judge", "reward") if each in known]
    seconds = float(np.mean([found.seconds[name] for found in results.values()]))
    if name == "seed":
        return ArmRow(
            name,
            {each: mean_over_users(seeds, name, each) for each in rewards},
            {each: mean_over_users(seeds, name, each) for each in ("recall@10", "recall@50")},
            (mean_total(seeds, name, "coverage"), mean_total(seeds, name, "session_coverage")),
            None,
            (),
            seconds,
        )
    verdict = judge_arm(seeds, name)
    return ArmRow(
        name,
        {each: verdict.gains[each].gain for each in rewards},
        {each: relative_change(seeds, "seed", name, each) for each in ("recall@10", "recall@50")},
        (
            coverage_change(seeds, "seed", name, "coverage"),
            coverage_change(seeds, "seed", name, "session_coverage"),
        ),
        verdict,
        tuple(seed_gains(seeds, name, rewards[0])),
        seconds,
    )


def count_users(results: Mapping[int, SeedResult]) -> int:
    """Count the users that were judged, one of several seeds once."""
    return len({user for found in results.values() for user in found.measured["seed"].users})


def render_table(rows: list[ArmRow], results: Mapping[int, SeedResult]) -> "RichTable":
    """Return the closing table of an experiment."""
    from rich.table import Table as RichTable

    n_users = f"{count_users(results):,} users"
    table = RichTable(
        title=f"{n_users}, {len(results)} seeds; gains and changes against the seed model"
    )
    # On a narrow terminal a cell takes more lines; a number never loses digits.
    for column in COLUMNS:
        table.add_column(column, no_wrap=column == "arm", min_width=8, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row_cells(row)))
    return table


def summarise(
    config: AblationConfig, rows: list[ArmRow], results: Mapping[int, SeedResult]
) -> dict[str, object]:
    """Return the figures of an experiment as plain values."""
    seeds = {seed: found.measured for seed, found in results.items()}
    return {
        "seeds": list(results),
        "n_users": {str(seed): found.n_judged for seed, found in results.items()},
        "n_left_out": {str(seed): found.n_left_out for seed, found in results.items()},
        "reward": {str(seed): asdict(found.reward) for seed, found in results.items()},
        "judge": {str(seed): asdict(found.judge) for seed, found in results.items()},
        "arms": [
            {
                "arm": row.name,
                "rewards": {name: asdict(each) for name, each in row.rewards.items()},
                "recalls": {name: asdict(each) for name, each in row.recalls.items()},
                "coverage": row.coverage[0],
                "session_coverage": row.coverage[1],
                "passes": None if row.verdict is None else row.verdict.passes,
                "checks": [] if row.verdict is None else [asdict(c) for c in row.verdict.checks],
                "gain_by_seed": list(row.oracle_by_seed),
                "totals": {
                    name: mean_total(seeds, row.name, name)
                    for name in next(iter(seeds.values()))[row.name].totals
                },
                "rounds": [dict(each) for each in next(iter(results.values())).rounds[row.name]],
                "seconds": round(row.seconds, 1),
            }
            for row in rows
        ],
        "config": config.model_dump(mode="json"),
    }


def row_cells(row: ArmRow) -> tuple[str, ...]:
    """Return the cells of one arm, texts in the order of `COLUMNS`."""
    if row.verdict is None:
        values = [format_interval(each) for each in row.rewards.values()]
        recalls = [f"{each.mean:.4f}" for each in row.recalls.values()]
        coverage = "{:.3f} / {:.3f}".format(*row.coverage)
        return (row.name, *_filled(values), *recalls, coverage, "")
    gains = [f"{e.mean:+.4f} [{e.low:+.4f}, {e.high:+.4f}]" for e in row.rewards.values()]
    recalls = [f"{e.mean:+.1%} [{e.low:+.1%}, {e.high:+.1%}]" for e in row.recalls.values()]
    coverage = "{:+.1%} / {:+.1%}".format(*row.coverage)
    return (
        row.name,
        *_filled(gains),
        *recalls,
        coverage,
        "holds" if row.verdict.passes else "fails",
    )


def _filled(values: list[str]) -> list[str]:
    """Put n/a where there is no oracle."""
    return ["n/a"] * (3 - len(values)) + values


def mean_total(seeds: Mapping[int, Mapping[str, Measured]], arm: str, name: str) -> float:
    """Return a figure of whole panels, a mean over seeds."""
    return float(np.mean([arms[arm].totals[name] for arms in seeds.values()]))
