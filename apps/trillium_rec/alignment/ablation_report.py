"""The report of an alignment experiment: arms, the rule's verdict, and why where it fails."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from trillium.files import write_atomically
from trillium.report.content import (
    Cell,
    Curves,
    Headline,
    ReportData,
    Section,
    Series,
    Settings,
    Table,
)
from trillium.report.render import render_report

from trillium_rec.alignment.ablation import SeedResult
from trillium_rec.alignment.ablation_config import AblationConfig
from trillium_rec.alignment.ablation_table import (
    COLUMNS,
    ArmRow,
    count_users,
    mean_total,
    row_cells,
    summarise,
    tabulate,
)
from trillium_rec.alignment.arms import ARMS
from trillium_rec.alignment.measures import Measured
from trillium_rec.alignment.rule import TERMS
from trillium_rec.reward.quality import RewardQuality

_DIAGNOSES = (
    ("top-3 share", "top_3_share"),
    ("Gini", "gini"),
    ("novelty (bits)", "novelty"),
    ("diversity", "diversity"),
    ("valid", "validity"),
)


def write_results(config: AblationConfig, results: Mapping[int, SeedResult]) -> Path:
    """Write `ablation.json` and `report.html` into the output folder; returns the report."""
    rows = tabulate(results)
    text = json.dumps(summarise(config, rows, results), indent=1)
    write_atomically(config.output / "ablation.json", text + "\n")
    path = config.output / "report.html"
    write_atomically(path, render_report(build_report(config, rows, results)))
    return path


def build_report(
    config: AblationConfig, rows: list[ArmRow], results: Mapping[int, SeedResult]
) -> ReportData:
    """Put an experiment into the report's terms."""
    seeds = {seed: found.measured for seed, found in results.items()}
    passing = [row.name for row in rows if row.verdict is not None and row.verdict.passes]
    tested = [row for row in rows if row.verdict is not None]
    return ReportData(
        title="Recommender: ways of preference alignment compared",
        subtitle=(
            f"{config.run.model.name}, {len(results)} seeds, "
            f"{count_users(results):,} users; every arm starts from "
            "one seed model and draws the same number of sessions"
        ),
        headlines=(
            Headline("arms that pass the rule", f"{len(passing)} of {len(tested)}"),
            *(
                Headline(
                    row.name, f"{next(iter(row.rewards.values())).mean:+.4f}", detail=_why(row)
                )
                for row in tested
                if row.name in ("ipa", "ipa_safe")
            ),
        ),
        sections=(
            Section("Arms", (_arms_table(rows), _help_table(rows)), intro=_sentence(rows)),
            Section("Why", (_checks_table(rows), _diagnoses(rows, seeds), *_curves(results))),
            Section("Reward model and judge", (_quality_table(results),)),
            Section("Settings", (Settings("config", config.model_dump(mode="json")),)),
        ),
        footer="trillium rec ablate",
    )


def _arms_table(rows: list[ArmRow]) -> Table:
    return Table(
        "Against the seed model",
        (*COLUMNS, "gain by seed", "seconds"),
        tuple(
            (
                *row_cells(row),
                " ".join(f"{g:+.3f}" for g in row.oracle_by_seed),
                round(row.seconds, 1),
            )
            for row in rows
        ),
        note="The first row has values, the others gains in reward and relative changes. Intervals "
        "are paired over users of all seeds. The reward model is what was optimised: no evidence.",
    )


def _help_table(rows: list[ArmRow]) -> Table:
    return Table("What they are", ("arm", ""), tuple((r.name, ARMS[r.name].help) for r in rows))


def _checks_table(rows: list[ArmRow]) -> Table:
    checks = [
        (row.name, check.name, "holds" if check.holds else "fails", check.figure)
        for row in rows
        if row.verdict is not None
        for check in row.verdict.checks
    ]
    columns = ("arm", "condition", "", "figure")
    return Table("Conditions of the rule", columns, tuple(checks), note=TERMS)


def _diagnoses(rows: list[ArmRow], seeds: Mapping[int, Mapping[str, Measured]]) -> Table:
    cells: list[tuple[Cell, ...]] = []
    for row in rows:
        logps = [arms[row.name].mean("logged_logp") for arms in seeds.values()]
        values = [mean_total(seeds, row.name, key) for _, key in _DIAGNOSES]
        cells.append((row.name, float(np.mean(logps)), *values))
    return Table(
        "What alignment did to the lists",
        ("arm", "logged items (nats)", *(name for name, _ in _DIAGNOSES)),
        tuple(cells),
        note="Logged items: mean log-probability of what users liked next. Novelty, diversity and "
        "the share of the three items shown most are of the shown sessions.",
    )


def _quality_table(results: Mapping[int, SeedResult]) -> Table:
    cells: list[tuple[Cell, ...]] = []
    for seed, found in results.items():
        for name, quality in (("reward model", found.reward), ("judge", found.judge)):
            cells += _quality_rows(seed, name, quality)
    return Table(
        "On lists of users that neither has seen",
        ("seed", "model", "head", "rate", "AUC", "popularity and position", "ECE", "uncalibrated"),
        tuple(cells),
    )


def _quality_rows(seed: int, name: str, quality: RewardQuality) -> list[tuple[Cell, ...]]:
    return [
        (seed, name, h.name, h.rate, h.auc, h.baseline_auc, h.ece, h.raw_ece) for h in quality.heads
    ]


def _curves(results: Mapping[int, SeedResult]) -> tuple[Curves, ...]:
    """Show, for the first seed, how far winners and losers moved in each round."""
    rounds = next(iter(results.values())).rounds
    series = []
    for arm in ("ipa", "ipa_safe", "ipa_no_log"):
        for key in ("gain_winner", "gain_losers"):
            points = [(n + 1, r[key]) for n, r in enumerate(rounds.get(arm, ())) if key in r]
            if points:
                xs, ys = zip(*points, strict=True)
                series.append(Series(f"{arm}, {key}", tuple(map(float, xs)), tuple(ys)))
    if not series:
        return ()
    title = "Winners and losers under the policy, against the round's snapshot"
    return (Curves(title, "round", "nats per session", tuple(series)),)


def _sentence(rows: list[ArmRow]) -> str:
    tested = [row for row in rows if row.verdict is not None]
    passing = ", ".join(row.name for row in tested if row.verdict and row.verdict.passes)
    ipa = next((row for row in tested if row.name == "ipa"), None)
    start = f"The rule holds for: {passing}." if passing else "The rule holds for no arm."
    if ipa is None or ipa.verdict is None or ipa.verdict.passes:
        return start
    return f"{start} Algorithm 2 as published fails it: {_why(ipa)}."


def _why(row: ArmRow) -> str:
    assert row.verdict is not None
    if row.verdict.passes:
        return "passes the rule"
    return "; ".join(f"{check.name}: {check.figure}" for check in row.verdict.failures)
