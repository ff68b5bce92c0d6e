"""The report of a sweep: accuracy and likelihood over the mixing weight."""

from collections.abc import Mapping, Sequence

from trillium.merging.config import MergeConfig
from trillium.report import Curves, Headline, ReportData, Section, Series, Settings, Table

_PLOTS = (
    ("Pairs ranked right", "share of pairs", "accuracy"),
    ("Pairs ranked right per token", "share of pairs", "accuracy_mean"),
    ("Likelihood of chosen responses", "mean log-probability per token (nats)", "chosen"),
)


def make_page(config: MergeConfig, rows: Sequence[Mapping[str, object]]) -> ReportData:
    """Return the report of a sweep between two inputs."""
    sets = list(measures_of(rows[0]))
    best = max(rows, key=lambda row: _mean_accuracy(row, sets))
    first, second = (str(path) for path in config.inputs)
    return ReportData(
        title=f"Merge by {config.method}",
        subtitle=f"From {first} (weight 0) to {second} (weight 1).",
        headlines=(
            Headline(
                "best mean accuracy",
                f"{_mean_accuracy(best, sets):.3f}",
                detail=f"at weight {_number(best['weight']):.3g}; chosen on the pairs it is "
                "measured on, so confirm it on others",
            ),
        ),
        sections=(
            Section("Over the mixing weight", tuple(_plot(rows, sets, *plot) for plot in _PLOTS)),
            Section("Numbers", (_table(rows, sets),)),
            Section("Settings", (Settings("Merge", config.model_dump(mode="json")),)),
        ),
        footer="trillium merge --sweep",
    )


def measures_of(row: Mapping[str, object]) -> dict[str, dict[str, float]]:
    """Return what a point was measured at, by set of pairs and measure."""
    found = row["sets"]
    assert isinstance(found, dict)
    return found


def _plot(
    rows: Sequence[Mapping[str, object]], sets: Sequence[str], title: str, label: str, key: str
) -> Curves:
    weights = tuple(_number(row["weight"]) for row in rows)
    series = tuple(Series(n, weights, tuple(_measure(row, n, key) for row in rows)) for n in sets)
    return Curves(title, "weight of the second input", label, series)


def _table(rows: Sequence[Mapping[str, object]], sets: Sequence[str]) -> Table:
    keys = ("accuracy", "accuracy_mean", "chosen", "margin")
    return Table(
        "Every point",
        ("weight", "kept", *(f"{name}: {key}" for name in sets for key in keys)),
        tuple(
            (
                _number(row["weight"]),
                _number(row["kept"]),
                *(_measure(row, name, key) for name in sets for key in keys),
            )
            for row in rows
        ),
        note="kept: share of the merged update, as squared size, that an adapter of this rank "
        "holds; 1 where the merge is exact.",
    )


def _mean_accuracy(row: Mapping[str, object], sets: Sequence[str]) -> float:
    return sum(_measure(row, name, "accuracy") for name in sets) / len(sets)


def _measure(row: Mapping[str, object], name: str, key: str) -> float:
    return measures_of(row)[name][key]


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)
