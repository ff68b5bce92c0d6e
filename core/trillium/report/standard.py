"""The blocks that every application shows: comparisons, training curves, stages, counts."""

from collections.abc import Mapping, Sequence

from trillium.evaluation.comparison import Comparison
from trillium.report.content import (
    Bars,
    BarSeries,
    Curves,
    Headline,
    Section,
    Series,
    Table,
)

TRAINING_PLOTS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Loss", "loss (nats per pair)", (("loss", "loss"),)),
    ("Reward margin", "chosen - rejected (reward)", (("rewards/margins", "margin"),)),
    (
        "Log-probability of chosen responses",
        "mean log-probability (nats)",
        (("logps/chosen", "chosen"),),
    ),
    (
        "Log-probability of rejected responses",
        "mean log-probability (nats)",
        (("logps/rejected", "rejected"),),
    ),
    (
        "Rewards",
        "implicit reward",
        (("rewards/chosen", "chosen"), ("rewards/rejected", "rejected")),
    ),
    ("Pairs ranked right", "share of pairs", (("rewards/accuracies", "accuracy"),)),
)


def comparison_headline(metric: str, comparison: Comparison) -> Headline:
    """Return a metric before and after with its gain and how sure it is."""
    gain = comparison.gain
    return Headline(
        label=metric,
        was=f"{comparison.before.mean:.3f}",
        value=f"{comparison.after.mean:.3f}",
        detail=f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}, {gain.level:.0%} interval)",
    )


def comparison_table(title: str, metrics: Mapping[str, Comparison], *, note: str = "") -> Table:
    """Return one row per metric: before, after, gain, tasks that changed, p-value."""
    return Table(
        title=title,
        columns=("metric", "before", "after", "gain", "better", "equal", "worse", "p"),
        rows=tuple(
            (
                metric,
                result.before,
                result.after,
                result.gain,
                result.n_better,
                result.n_equal,
                result.n_worse,
                result.permutation_p,
            )
            for metric, result in metrics.items()
        ),
        note=note
        or "Intervals are bootstrapped over tasks, paired for the gain; better, equal and worse "
        "count tasks; p is two-sided, from exchanging before and after within tasks.",
    )


def comparison_bars(title: str, metrics: Mapping[str, Comparison], *, value_label: str) -> Bars:
    """Return before and after side by side for each metric, with intervals."""
    return Bars(
        title=title,
        value_label=value_label,
        groups=tuple(metrics),
        series=(
            BarSeries("before", tuple(result.before for result in metrics.values())),
            BarSeries("after", tuple(result.after for result in metrics.values())),
        ),
        note="Lines are intervals over tasks.",
    )


def training_curves(log: Sequence[Mapping[str, float]]) -> tuple[Curves, ...]:
    """Return the plots of a training log: one mapping per logged step, with `step` and measures.

    Keys are TRL's (`loss`, `rewards/margins`, `logps/chosen`, ...). Chosen and rejected
    log-probabilities have a plot each, because a common one hides that both can fall. A measure
    with the prefix `eval_` is drawn beside its training twin. What was not logged has no plot.
    """
    plots = []
    for title, y_label, measures in TRAINING_PLOTS:
        series = [
            one
            for key, name in measures
            for one in (_series(log, key, name), _series(log, f"eval_{key}", f"held-out {name}"))
            if one.x
        ]
        if series:
            plots.append(Curves(title, "optimizer step", y_label, tuple(series)))
    return tuple(plots)


def stage_bars(seconds: Mapping[str, float], *, title: str = "Time by stage") -> Bars:
    """Return how long each stage took, in the order in which they ran."""
    return Bars(
        title=title,
        value_label="seconds",
        groups=tuple(seconds),
        series=(BarSeries("time", tuple(seconds.values())),),
        is_horizontal=True,
    )


def cost_section(seconds: Mapping[str, float], numbers: Sequence[tuple[str, str]]) -> Section:
    """Return what a run took: the time of each stage, then named numbers as they are written."""
    named = {stage.replace("_", " "): spent for stage, spent in seconds.items()}
    return Section("Cost", (stage_bars(named), Table("Numbers", ("", "value"), tuple(numbers))))


def _series(log: Sequence[Mapping[str, float]], key: str, name: str) -> Series:
    points = [(float(entry["step"]), float(entry[key])) for entry in log if key in entry]
    return Series(name, tuple(x for x, _ in points), tuple(y for _, y in points))
