"""The report of a run: what the shared report page shows for the recommender."""

import json
from pathlib import Path

from trillium.evaluation import Interval
from trillium.files import write_atomically
from trillium.report.content import (
    Bars,
    BarSeries,
    Curves,
    Headline,
    ReportData,
    Section,
    Series,
    Settings,
    Table,
)
from trillium.report.render import render_report
from trillium.report.standard import stage_bars

from trillium_rec.alignment.report import alignment_section
from trillium_rec.config import RecConfig
from trillium_rec.evaluation import KS, Evaluation
from trillium_rec.pipeline import RecResult
from trillium_rec.summary import describe_quality, gains_over_baselines

_SHOWN_HISTORY, _SHOWN_LIST = 5, 5


def write_report(config: RecConfig, result: RecResult) -> Path:
    """Write `report.html` into the run folder and return its path; overwrites an older one."""
    path = result.folder / "report.html"
    write_atomically(path, render_report(build_report(config, result)))
    return path


def build_report(config: RecConfig, result: RecResult) -> ReportData:
    """Put the results of a run into the report's terms."""
    best = result.evaluations[-1]
    counts = result.data.counts
    return ReportData(
        title="Recommender: semantic ids, decoded exactly",
        subtitle=(
            f"{config.model.name} on {counts['positive_events']:,} positive events of "
            f"{counts['users']:,} users and {counts['items']:,} items; judged on the last item of "
            f"{counts['judged_users']:,} users, full ranking, histories masked"
            f"{_out_of_reach(counts['test_targets_in_history'])}"
        ),
        headlines=(
            *_accuracy_headlines(best),
            Headline("coverage at 10", f"{best.coverage:.1%}"),
            Headline("valid items", f"{best.validity:.1%}"),
        ),
        sections=(
            Section("Recommendations", (_recommendations(config, result),)),
            _quality(result),
            *_alignment(config, result),
            Section("Semantic ids", (_levels(result),), intro=describe_quality(result.quality)[-1]),
            Section("Training", tuple(_curves(result))),
            Section("Log", (Table("Counts", ("", "number"), tuple(counts.items())),)),
            Section(
                "Cost",
                (stage_bars({name: stage.seconds for name, stage in result.stages.items()}),),
            ),
            Section("Settings", (Settings("config.yaml", config.model_dump(mode="json")),)),
        ),
        footer=f"trillium rec run {result.folder / 'config.yaml'}",
    )


def _out_of_reach(n_targets: int) -> str:
    """Say how many users took something again, which no masked list can hold."""
    return f" (and with them {n_targets:,} of the test items, which all miss)" if n_targets else ""


def _alignment(config: RecConfig, result: RecResult) -> tuple[Section, ...]:
    if result.alignment is None:
        return ()
    titles = result.data.positive.catalogue.titles
    return (alignment_section(result.alignment, titles, config.evaluate.n_shown_users),)


def _accuracy_headlines(best: Evaluation) -> tuple[Headline, ...]:
    found = [(name, best.metrics[name]) for name in ("recall@10", "ndcg@10")]
    return tuple(Headline(name, f"{at.mean:.4f}", detail=_bounds(at)) for name, at in found)


def _quality(result: RecResult) -> Section:
    found = result.evaluations
    names = tuple(f"{metric}@{k}" for k in KS for metric in ("recall", "ndcg"))
    accuracy = Table(
        "Test items found",
        ("recommender", *names),
        tuple((each.name, *(each.metrics[name] for name in names)) for each in found),
        note="Item-level hits over the full catalogue; intervals are bootstrapped over users.",
    )
    beyond = Table(
        "Beyond accuracy, first ten places",
        ("recommender", "coverage", "Gini", "novelty (bits)", "diversity", "valid", "cold recall"),
        tuple(
            (e.name, e.coverage, e.exposure_gini, e.novelty, e.diversity, e.validity, e.cold.recall)
            for e in found
        ),
        note=f"{found[0].cold.n_targets} test items have no training event: the cold ones.",
    )
    gains = Table(
        f"Gain of {found[-1].name} in ndcg@10, user by user",
        ("over", "gain", "better", "equal", "worse", "p"),
        tuple(
            (name, c.gain, c.n_better, c.n_equal, c.n_worse, c.permutation_p)
            for name, c in gains_over_baselines(found).items()
        ),
    )
    return Section("Results", (accuracy, gains, _deciles(found), beyond, *_loads(result)))


def _deciles(found: tuple[Evaluation, ...]) -> Bars:
    with_targets = [n for n in range(10) if found[0].deciles[n].n_targets]
    return Bars(
        "Recall at 10 by popularity of the test item",
        "recall@10",
        tuple(f"{n + 1} ({found[0].deciles[n].n_targets})" for n in with_targets),
        tuple(
            BarSeries(each.name, tuple(each.deciles[n].recall or 0.0 for n in with_targets))
            for each in found
        ),
        note="Tenths of the catalogue from rare to popular; in brackets the number of test items.",
    )


def _loads(result: RecResult) -> tuple[Table, ...]:
    if not result.loads:
        return ()
    rows = tuple(
        (f"layer {number}", min(load), max(load), 1 / len(load))
        for number, load in enumerate(result.loads, 1)
    )
    title = "Share of tokens per expert, during the evaluation"
    return (Table(title, ("", "least", "most", "even"), rows),)


def _recommendations(config: RecConfig, result: RecResult) -> Table:
    found = result.evaluations[-1]
    titles = result.data.positive.catalogue.titles
    judged = result.data.split.test
    rows = []
    for row in range(min(config.evaluate.n_shown_users, len(found.ranks))):
        history = [titles[item] for item in judged.histories.of(row)[-_SHOWN_HISTORY:].tolist()]
        shown = [titles[item] for item in found.lists[row, :_SHOWN_LIST].tolist() if item >= 0]
        rank = int(found.ranks[row])
        took = f"{titles[int(judged.target[row])]} (place {rank or 'beyond 50'})"
        rows.append((found.users[row], "; ".join(history), "; ".join(shown), took))
    return Table(
        f"What {found.name} recommends",
        ("user", "last items", "recommended", "took next"),
        tuple(rows),
    )


def _levels(result: RecResult) -> Table:
    return Table(
        f"Levels of version {result.ids.version}",
        ("level", "codes", "in use", "entropy (nats)", "Gini", "fewest items", "most items"),
        tuple(
            (
                n,
                level.n_codes,
                level.usage,
                level.entropy,
                level.gini,
                level.smallest,
                level.largest,
            )
            for n, level in enumerate(result.quality.levels, 1)
        ),
    )


def _curves(result: RecResult) -> list[Curves]:
    lines = (result.folder / "metrics.jsonl").read_text().splitlines()
    rows: list[dict[str, float]] = [json.loads(line) for line in lines]
    plots = []
    for title, y_label, keys in (
        ("Loss", "nats per target", ("loss_codes", "loss_item")),
        ("Validation", "mean ndcg@10 of the heads", ("validation",)),
    ):
        series = []
        for key in keys:
            points = [(row["epoch"], row[key]) for row in rows if key in row]
            if points:
                x, y = (tuple(map(float, values)) for values in zip(*points, strict=True))
                series.append(Series(key, x, y))
        plots.append(Curves(title, "epoch", y_label, tuple(series)))
    return plots


def _bounds(interval: Interval) -> str:
    return f"{interval.low:.4f} to {interval.high:.4f} ({interval.level:.0%} interval)"
