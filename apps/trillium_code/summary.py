"""What a run gained and what it cost, as numbers and as a table for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trillium.evaluation import Comparison, Interval, compare, pass_at_k_by_task
from trillium.manifest import StageRecord
from trillium.progress import format_duration

from trillium_code.records import TaskResult

if TYPE_CHECKING:
    from rich.console import Group

_SAMPLING = ("sample_programs", "sample_tests", "sample_before", "sample_after")


@dataclass(frozen=True)
class Gains:
    """Hold pass@k before and after on the held-out tasks, paired over tasks.

    Tasks of which the sandbox lost so many samples that pass@k cannot be estimated are left out of
    that k; `n_lost_programs` counts the lost samples.
    """

    by_k: dict[int, Comparison]
    n_tasks: int
    n_samples: int
    n_lost_programs: int


@dataclass(frozen=True)
class Cost:
    """Hold what a run took, from the manifest: seconds by stage, tokens, memory."""

    seconds: dict[str, float]
    sampled_tokens_per_s: float
    trained_tokens_per_s: float
    peak_memory_bytes: int


def measure_gains(
    before: Sequence[TaskResult], after: Sequence[TaskResult], ks: Sequence[int], *, seed: int = 0
) -> Gains:
    """Compare pass@k on equal tasks, with 95 % bootstrap intervals over tasks."""
    old = {result.task_id: result.judged for result in before}
    new = {result.task_id: result.judged for result in after}
    by_k: dict[int, Comparison] = {}
    for k in ks:
        enough = [id for id in old if min(len(old[id]), len(new.get(id, ()))) >= k]
        by_k[k] = compare(
            pass_at_k_by_task({id: old[id] for id in enough}, k),
            pass_at_k_by_task({id: new[id] for id in enough}, k),
            seed=seed,
        )
    results = [*before, *after]
    return Gains(
        by_k=by_k,
        n_tasks=len(before),
        n_samples=max((len(result.passed) for result in before), default=0),
        n_lost_programs=sum(result.passed.count(None) for result in results),
    )


def measure_cost(stages: Mapping[str, StageRecord]) -> Cost:
    """Add up what the stages recorded."""
    return Cost(
        seconds={name: record.seconds for name, record in stages.items()},
        sampled_tokens_per_s=_rate([stages[name] for name in _SAMPLING if name in stages]),
        trained_tokens_per_s=_rate([stages["align"]] if "align" in stages else []),
        peak_memory_bytes=int(
            max(
                (record.counts.get("peak_memory_bytes", 0) for record in stages.values()), default=0
            )
        ),
    )


def gains_rows(gains: Gains) -> list[tuple[str, str, str, str]]:
    """Return a row per k: name, before, after, gain; each with its interval."""
    return [
        (
            f"pass@{k}",
            format_interval(comparison.before),
            format_interval(comparison.after),
            format_interval(comparison.gain, sign=True),
        )
        for k, comparison in gains.by_k.items()
    ]


def cost_rows(gains: Gains, cost: Cost, stages: Mapping[str, StageRecord]) -> list[tuple[str, str]]:
    """Return what the run was made of and what it took."""
    pair, execute = stages["pair"].counts, stages["execute"].counts
    train = stages["align"].counts
    lost = gains.n_lost_programs + int(execute.get("sandbox_failures", 0))
    removed = ", ".join(
        f"{int(pair[f'{reason}_tests'])} {reason}"
        for reason in ("impossible", "trivial", "flaky", "uncalled")
    )
    early = ", stopped by train.stop_margin" if train["stopped_early"] else ""
    return [
        ("pairs", f"{int(pair['pairs'])} from {int(pair['paired_tasks'])} training tasks"),
        ("own tests", f"{int(pair['kept_tests'])} kept; removed: {removed}"),
        ("training", f"{int(train['steps'])} steps{early}"),
        ("sampling", f"{cost.sampled_tokens_per_s:.0f} tokens/s"),
        ("training speed", f"{cost.trained_tokens_per_s:.0f} tokens/s"),
        ("peak memory", f"{cost.peak_memory_bytes / 2**30:.2f} GiB"),
        ("sandbox failures", f"{lost} (excluded)"),
        ("time", format_duration(sum(cost.seconds.values()))),
    ]


def render_summary(gains: Gains, cost: Cost, stages: Mapping[str, StageRecord]) -> "Group":
    """Return the closing tables of a run: what was gained, and what it took."""
    from rich.console import Group
    from rich.table import Table

    gained = Table(title=f"{gains.n_tasks} held-out tasks, {gains.n_samples} programs each")
    for column in ("", "before", "after", "gain"):
        gained.add_column(column, no_wrap=True)
    for row in gains_rows(gains):
        gained.add_row(*row)
    spent = Table(show_header=False, box=None)
    for name, value in cost_rows(gains, cost, stages):
        spent.add_row(name, value)
    return Group(gained, spent)


def format_interval(interval: Interval, *, sign: bool = False) -> str:
    """Return a mean with its interval: 0.412 [0.35, 0.47]."""
    plus = "+" if sign else ""
    return f"{interval.mean:{plus}.3f} [{interval.low:{plus}.2f}, {interval.high:{plus}.2f}]"


def _rate(records: Sequence[StageRecord]) -> float:
    seconds = sum(record.seconds for record in records)
    return sum(record.counts.get("tokens", 0) for record in records) / seconds if seconds else 0.0
