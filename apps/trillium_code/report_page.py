"""The report of a run: what the shared report page shows for the code application."""

from collections.abc import Sequence
from pathlib import Path

from trillium.evaluation import compare, pass_at_k_by_task
from trillium.files import write_atomically
from trillium.report.content import (
    Headline,
    ReportData,
    Sample,
    SamplePair,
    SamplePairs,
    Section,
    Settings,
    Table,
)
from trillium.report.render import render_report
from trillium.report.standard import (
    comparison_bars,
    comparison_headline,
    comparison_table,
    cost_section,
    training_curves,
)
from trillium.training.journal import read_metrics

from trillium_code.config import CodeConfig
from trillium_code.pipeline import CodeResult
from trillium_code.records import TaskResult
from trillium_code.summary import (
    Cost,
    Gains,
    cost_rows,
    measure_cost,
    measure_result,
    speed_rows,
)

_MOST_SAMPLES = 12


def write_report(config: CodeConfig, result: CodeResult) -> Path:
    """Write `report.html` into the run folder and return its path; overwrites an older one."""
    gains = measure_result(result, config.evaluate.k)
    report = build_report(config, result, gains, measure_cost(result.stages))
    path = result.folder / "report.html"
    write_atomically(path, render_report(report))
    return path


def build_report(config: CodeConfig, result: CodeResult, gains: Gains, cost: Cost) -> ReportData:
    """Put the results of a run into the report's terms."""
    first = gains.by_k[min(gains.by_k)]
    return ReportData(
        title="Code: aligned by its own tests",
        subtitle=(
            f"{config.policy.base}, {config.objective.name} on {len(result.pairs)} pairs from "
            f"{len(result.tasks.train)} training tasks; judged on {gains.n_tasks} other tasks"
        ),
        headlines=(
            comparison_headline(f"pass@{min(gains.by_k)}", first),
            Headline("pairs", " + ".join(map(str, result.n_pairs)), detail=_kinds(result)),
            Headline("sampling", f"{cost.sampled_tokens_per_s:.0f} tokens/s"),
            Headline("peak memory", f"{cost.peak_memory_bytes / 2**30:.2f} GiB"),
        ),
        sections=(
            _results(result, gains),
            Section("Training", training_curves(read_metrics(result.folder))),
            Section("Samples", (_changed_samples(result), _pair_samples(result))),
            cost_section(cost.seconds, cost_rows(gains, cost, result.stages)),
            *([_set_aside(result)] if result.tasks.set_aside or result.tasks.removed else []),
            Section("Settings", (Settings("config.yaml", config.model_dump(mode="json")),)),
        ),
        footer=f"trillium code run {result.folder / 'config.yaml'}",
    )


def _kinds(result: CodeResult) -> str:
    n_fast = sum(pair.kind == "efficiency" for pair in result.pairs)
    return f"{n_fast} of them fast against slow, in the last round" if n_fast else ""


def _results(result: CodeResult, gains: Gains) -> Section:
    metrics = gains.by_metric()
    speed = speed_rows(gains)
    return Section(
        "Result",
        (
            comparison_bars("pass@k on held-out tasks", metrics, value_label="share of tasks"),
            comparison_table(
                "Paired over tasks",
                metrics,
                note=f"{gains.n_samples} programs per task; {gains.n_lost_programs} programs that "
                "the sandbox lost are left out. Intervals are bootstrapped over tasks; p is "
                "two-sided, from exchanging before and after within tasks.",
            ),
            _by_band(result.before, result.after),
            *([Table("Speed of right programs", ("", "value"), tuple(speed))] if speed else []),
        ),
        intro="No held-out task, and no hidden test, was seen in training.",
    )


def _by_band(before: Sequence[TaskResult], after: Sequence[TaskResult]) -> Table:
    rows = []
    for band in dict.fromkeys(result.band for result in before):
        sides = [
            pass_at_k_by_task(
                {r.task_id: r.judged for r in results if r.band == band and r.judged}, 1
            )
            for results in (before, after)
        ]
        shared = sides[0].keys() & sides[1].keys()
        if shared:
            found = compare(*({id: side[id] for id in shared} for side in sides))
            rows.append((band, len(shared), found.before, found.after, found.gain))
    return Table("pass@1 by difficulty", ("band", "tasks", "before", "after", "gain"), tuple(rows))


def _changed_samples(result: CodeResult) -> SamplePairs:
    """Show the first sample of the tasks whose results changed most, gains and losses alike."""
    tasks = {task.id: task for task in result.tasks.held_out}
    after = {found.task_id: found for found in result.after}

    def change(old: TaskResult) -> float:
        return _share(after[old.task_id]) - _share(old)

    shown = [old for old in result.before if old.programs and after[old.task_id].programs]
    ordered = sorted(shown, key=lambda old: -abs(change(old)))[:_MOST_SAMPLES]
    pairs = tuple(
        SamplePair(
            f"{old.task_id}: {_count(old)} before, {_count(after[old.task_id])} after",
            tasks[old.task_id].header,
            _program(old, is_good=change(old) < 0),
            _program(after[old.task_id], is_good=change(old) > 0),
        )
        for old in ordered
    )
    return SamplePairs(
        "Held-out tasks that changed most",
        "before",
        "after",
        pairs,
        note="of the samples of a task, the first one that shows the change",
    )


def _program(result: TaskResult, *, is_good: bool) -> Sample:
    flags = list(result.passed)
    place = flags.index(is_good) if is_good in flags else 0
    verdict = {True: "passes", False: "fails", None: "sandbox failure"}[flags[place]]
    return Sample(result.programs[place], verdict, flags[place])


def _share(result: TaskResult) -> float:
    return sum(result.judged) / max(1, len(result.judged))


def _count(result: TaskResult) -> str:
    return f"{sum(result.judged)}/{len(result.judged)}"


def _pair_samples(result: CodeResult) -> SamplePairs:
    headers = {task.id: task.header for task in result.tasks.train}
    step = max(1, len(result.pairs) // _MOST_SAMPLES)
    return SamplePairs(
        "Training pairs",
        "chosen",
        "rejected",
        tuple(
            SamplePair(pair.id, headers[pair.task_id], Sample(pair.chosen), Sample(pair.rejected))
            for pair in result.pairs[::step][:_MOST_SAMPLES]
        ),
        note="chosen and rejected by the model's own tests, which can be wrong",
    )


def _set_aside(result: CodeResult) -> Section:
    rows = [("cannot be used", problem) for problem in result.tasks.set_aside]
    rows += [(f"repeats {twin}", id) for id, twin in result.tasks.removed.items()]
    return Section("Set aside", (Table(f"{len(rows)} tasks", ("why", "task"), tuple(rows)),))
