"""What a run gained and what it cost, as numbers and as a table for the terminal."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from trillium.evaluation import (
    Comparison,
    Interval,
    bootstrap_mean,
    compare,
    format_interval,
    pass_at_k_by_task,
)
from trillium.manifest import StageRecord
from trillium.progress import format_duration

from trillium_code.records import TaskResult, TaskSpeed

if TYPE_CHECKING:
    from rich.console import Group

    from trillium_code.pipeline import CodeResult


@dataclass(frozen=True)
class SpeedGain:
    """Hold how much faster right programs became, over the tasks that both policies solve.

    `speedup` is a geometric mean; the shares are of couples of a program before and one after.
    """

    speedup: Interval
    share_faster: Interval
    share_slower: Interval
    n_tasks: int


@dataclass(frozen=True)
class Gains:
    """Hold pass@k before and after on the held-out tasks, paired over tasks.

    Tasks without enough samples to estimate pass@k, because the sandbox lost some or the prompt was
    too long, are left out of that k; `n_lost_programs` counts the lost samples. `plus_by_k` is
    pass@k on the plus tests.
    """

    by_k: dict[int, Comparison]
    n_tasks: int
    n_samples: int
    n_lost_programs: int
    plus_by_k: dict[int, Comparison] = field(default_factory=dict)
    speed: SpeedGain | None = None

    def by_metric(self) -> dict[str, Comparison]:
        """Return every comparison under the name that reports give it."""
        plain = {f"pass@{k}": found for k, found in self.by_k.items()}
        return plain | {f"pass@{k}, plus tests": found for k, found in self.plus_by_k.items()}


@dataclass(frozen=True)
class Cost:
    """Hold what a run took, from the manifest: seconds by stage, tokens, memory.

    `peak_gpu_bytes` is what tensors held at once, 0 without a GPU.
    """

    seconds: dict[str, float]
    sampled_tokens_per_s: float
    trained_tokens_per_s: float
    peak_memory_bytes: int
    peak_gpu_bytes: int = 0


def measure_result(result: "CodeResult", ks: Sequence[int]) -> Gains:
    """Return all that a run gained: pass@k, pass@k on plus tests, and speed, where measured."""
    gains = measure_gains(result.before, result.after, ks)
    plus = (
        measure_gains(result.plus_before, result.plus_after, ks).by_k if result.plus_after else {}
    )
    return replace(gains, plus_by_k=plus, speed=measure_speed(result.speed))


def measure_speed(speeds: Sequence[TaskSpeed], *, seed: int = 0) -> SpeedGain | None:
    """Average over tasks, with 95 % bootstrap intervals; None without a task to compare."""
    if not speeds:
        return None
    logs, faster, slower = (
        bootstrap_mean(values, seed=seed)
        for values in (
            [speed.log_speedup for speed in speeds],
            [speed.share_faster for speed in speeds],
            [speed.share_slower for speed in speeds],
        )
    )
    speedup = Interval(math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high), logs.level)
    return SpeedGain(speedup, faster, slower, len(speeds))


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
        sampled_tokens_per_s=_rate([r for name, r in stages.items() if name.startswith("sample_")]),
        trained_tokens_per_s=_rate([r for name, r in stages.items() if name.startswith("align")]),
        peak_memory_bytes=_largest(stages, "peak_memory_bytes"),
        peak_gpu_bytes=_largest(stages, "peak_gpu_bytes"),
    )


def _largest(stages: Mapping[str, StageRecord], name: str) -> int:
    return int(max((record.counts.get(name, 0) for record in stages.values()), default=0))


def gains_rows(gains: Gains) -> list[tuple[str, str, str, str]]:
    """Return a row per metric: name, before, after, gain; each with its interval."""
    return [
        (
            name,
            format_interval(comparison.before),
            format_interval(comparison.after),
            format_interval(comparison.gain, sign=True),
        )
        for name, comparison in gains.by_metric().items()
    ]


def speed_rows(gains: Gains) -> list[tuple[str, str]]:
    """Return what is known about the speed of right programs."""
    speed = gains.speed
    if speed is None:
        return []
    return [
        ("speed-up", f"{format_interval(speed.speedup)} on {speed.n_tasks} tasks that both solve"),
        ("programs faster", format_interval(speed.share_faster)),
        ("programs slower", format_interval(speed.share_slower)),
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
    too_long = max(int(record.counts.get("too_long_prompts", 0)) for record in stages.values())
    fast = int(stages["pair_fast"].counts["pairs"]) if "pair_fast" in stages else 0
    unsteady = int(execute.get("unsteady_programs", 0))
    kinds = f", and {fast} of fast and slow" if fast else ""
    on_gpu = f", {cost.peak_gpu_bytes / 2**30:.2f} GiB on the GPU" if cost.peak_gpu_bytes else ""
    return [
        ("pairs", f"{int(pair['pairs'])} from {int(pair['paired_tasks'])} training tasks{kinds}"),
        ("own tests", f"{int(pair['kept_tests'])} kept; removed: {removed}"),
        ("training", f"{int(train['steps'])} steps{early}"),
        ("sampling", f"{cost.sampled_tokens_per_s:.0f} tokens/s"),
        ("training speed", f"{cost.trained_tokens_per_s:.0f} tokens/s"),
        ("peak memory", f"{cost.peak_memory_bytes / 2**30:.2f} GiB{on_gpu}"),
        ("sandbox failures", f"{lost} (excluded)"),
        *_word_rows(stages),
        *([("unsteady programs", f"{unsteady} (excluded)")] if unsteady else []),
        *([("set aside", f"{too_long} tasks, their prompts too long")] if too_long else []),
        *_reading_rows(stages),
        *_kill_rows(stages),
        ("time", format_duration(sum(cost.seconds.values()))),
    ]


def _word_rows(stages: Mapping[str, StageRecord]) -> list[tuple[str, str]]:
    """Return what hidden tests had to take on a program's own word, which nobody can check."""
    n = sum(int(record.counts.get("passed_by_own_word", 0)) for record in stages.values())
    said = f"{n} passes of hidden tests rest on what a program says of its own objects"
    return [("own word", said)] if n else []


def _reading_rows(stages: Mapping[str, StageRecord]) -> list[tuple[str, str]]:
    """Return what was found in the samples beside programs as asked for; nothing where all were."""
    read = [record.counts for record in stages.values() if "without_program" in record.counts]
    without, renamed, unwrapped = (
        sum(int(counts[name]) for counts in read)
        for name in ("without_program", "renamed_programs", "unwrapped_programs")
    )
    repairs = f"{renamed} renamed, {unwrapped} taken out of a class"
    return [
        *([("no program", f"in {without} samples, which fail every test")] if without else []),
        *([("signatures repaired", repairs)] if renamed or unwrapped else []),
    ]


def _kill_rows(stages: Mapping[str, StageRecord]) -> list[tuple[str, str]]:
    """Return what kills and servers took from exactness; nothing where there was nothing."""

    def total(name: str) -> int:
        return sum(int(record.counts.get(name, 0)) for record in stages.values())

    again, left_out = total("programs_run_again"), total("programs_left_out")
    encoded = total("encoded_again")
    executions = f"{again} programs, {total('executions_again')} executions"
    return [
        *([("run again after a kill", executions)] if again else []),
        *([("left out after a kill", f"{left_out} programs")] if left_out else []),
        *([("token ids", f"of {encoded} completions encoded again from text")] if encoded else []),
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
    for name, value in [*speed_rows(gains), *cost_rows(gains, cost, stages)]:
        spent.add_row(name, value)
    return Group(gained, spent)


def _rate(records: Sequence[StageRecord]) -> float:
    seconds = sum(record.seconds for record in records)
    return sum(record.counts.get("tokens", 0) for record in records) / seconds if seconds else 0.0
