"""What a run gained and what it cost, as numbers and as a table for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trillium.evaluation import Comparison, format_interval
from trillium.manifest import StageRecord
from trillium.progress import format_duration

from trillium_math.evaluation import Evaluation, compare_policies, evaluate
from trillium_math.grading import Grader
from trillium_math.value.stage import ValueReport, report_values
from trillium_math.voting import SameAnswer

if TYPE_CHECKING:
    from rich.console import Group

    from trillium_math.pipeline import MathResult


@dataclass(frozen=True)
class Gains:
    """Hold both policies' evaluations and their comparison, paired over problems."""

    before: Evaluation
    after: Evaluation
    by_measure: Mapping[str, Comparison]
    values: ValueReport | None = None


def measure_gains(result: "MathResult", ks: Sequence[int]) -> Gains:
    """Evaluate both policies on the held-out problems."""
    with Grader() as grader:
        held_out, same = result.problems.held_out, grader.is_same
        return Gains(
            before=evaluate(held_out, result.before, ks, same),
            after=evaluate(held_out, result.after, ks, same),
            by_measure=compare_policies(result.before, result.after, ks, same),
            values=_report_values(result, ks, same),
        )


def _report_values(result: "MathResult", ks: Sequence[int], same: SameAnswer) -> ValueReport | None:
    if not result.valued:
        return None
    spent = result.stages["guided"].counts["sampled_tokens"] if result.guided else 0
    return report_values(
        result.after, result.valued, result.guided, int(spent), ks, same, strategy="guided search"
    )


def value_rows(found: ValueReport) -> list[tuple[str, str, str]]:
    """Return what is known of the value function, and a row per point of the search curve."""
    rows = []
    for name, one in (("after the prompt", found.at_start), ("at the end", found.at_end)):
        if one is not None:
            auc = "n/a" if one.auc is None else f"{one.auc:.2f}"
            rows.append((f"value {name}", f"error {one.ece:.3f}", f"AUC {auc}"))
    return rows + [
        (f"{point.strategy}, {point.budget} samples", f"{point.tokens:.0f} tokens",
         format_interval(point.accuracy))
        for point in found.curve
    ]  # fmt: skip


def gains_rows(gains: Gains) -> list[tuple[str, str, str, str]]:
    """Return a row per measure: name, before, after, gain; each with its interval."""
    rows = [
        (
            name,
            format_interval(found.before),
            format_interval(found.after),
            format_interval(found.gain, sign=True),
        )
        for name, found in gains.by_measure.items()
    ]
    rates = [side.tool_error_rate for side in (gains.before, gains.after)]
    change = f"{rates[1] - rates[0]:+.3f}"
    return [*rows, ("tool errors per call", f"{rates[0]:.3f}", f"{rates[1]:.3f}", change)]


def cost_rows(stages: Mapping[str, StageRecord]) -> list[tuple[str, str]]:
    """Return what the run was made of and what it took."""
    rows = []
    for name, record in stages.items():
        counts = record.counts
        if "trees" in counts:
            said = [f"{count:.0f} {key.replace('_', ' ')}" for key, count in counts.items()
                    if count and key != "peak_memory_bytes"]  # fmt: skip
            rows.append((name, ", ".join(said)))
        if "tokens" in counts and record.seconds:
            rate = counts["tokens"] / record.seconds
            took = format_duration(record.seconds)
            rows.append((name, f"{counts['tokens']:,.0f} tokens, {took}, {rate:.0f} tokens/s"))
    peak = max((record.counts.get("peak_memory_bytes", 0) for record in stages.values()), default=0)
    faults = sum(r.counts.get("ended_environment_fault", 0) for r in stages.values())
    timeouts = sum(record.counts.get("grader_timeouts", 0) for record in stages.values())
    return [
        *rows,
        ("peak memory", f"{peak / 2**30:.2f} GiB"),
        ("sandbox failures", f"{faults:.0f} (excluded)"),
        ("gradings without a verdict in time", f"{timeouts:.0f} (counted as wrong)"),
        ("time", format_duration(sum(record.seconds for record in stages.values()))),
    ]


def render_evaluation(found: Evaluation) -> "Group":
    """Return the tables of one policy: measures, groups, and how trajectories ended."""
    from rich.console import Group
    from rich.table import Table

    measures = Table(title="accuracy", show_header=False)
    for name, interval in found.measures.items():
        measures.add_row(name, str(found.n_problems[name]), format_interval(interval))
    for title, groups in (
        ("family", found.by_family),
        ("difficulty", found.by_difficulty),
        ("turns", found.by_turns),
    ):
        for group in groups:
            measures.add_row(f"{title} {group.name}", str(group.n), format_interval(group.accuracy))
    measures.add_row("tool errors per call", "", f"{found.tool_error_rate:.3f}")
    counts = Table(show_header=False, box=None)
    for name, count in found.counts.items():
        counts.add_row(name.replace("_", " "), str(count))
    return Group(measures, counts)


def render_summary(gains: Gains, stages: Mapping[str, StageRecord]) -> "Group":
    """Return the closing tables of a run: what was gained, and what it took."""
    from rich.console import Group
    from rich.table import Table

    gained = Table(title="held-out problems, before and after training")
    for column in ("", "before", "after", "gain"):
        gained.add_column(column, no_wrap=True)
    for row in gains_rows(gains):
        gained.add_row(*row)
    spent = Table(show_header=False, box=None)
    for name, value in cost_rows(stages):
        spent.add_row(name, value)
    if gains.values is None:
        return Group(gained, spent)
    valued = Table(title="the value function, and search at test time", show_header=False)
    for point in value_rows(gains.values):
        valued.add_row(*point)
    return Group(gained, valued, spent)
