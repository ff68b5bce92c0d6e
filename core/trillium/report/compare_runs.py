"""`compare_page`: any number of runs on one page, with what they differ in and what they share."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from trillium.compare import RunFacts, differing, read_runs
from trillium.evaluation import Comparison, bootstrap_mean, compare
from trillium.report.content import (
    Block,
    Cell,
    Curves,
    Headline,
    ReportData,
    SampleRow,
    SampleRows,
    Section,
    Series,
    Table,
)
from trillium.report.run_files import (
    JOURNALS,
    read_journal,
    read_measures,
    read_task_values,
    read_texts,
    shared_files,
)
from trillium.report.standard import TRAINING_PLOTS

# What was not drawn is counted under the curves.
_MAX_CURVES = 24
_MAX_SAMPLES = 30


def compare_page(folders: Sequence[Path]) -> ReportData:
    """Return the page; raises ConfigError for fewer than two folders, DataError for no run."""
    runs = read_runs(folders)
    names = name_runs(folders)
    files = shared_files(folders)
    settings = differing([run.settings for run in runs])
    sections = [
        Section("Settings", (_settings(names, settings),)),
        Section("Stages", (_figures(names, runs),)),
        *_training(names, folders, files),
        *_evaluations(names, folders, files),
        *_samples(names, folders, files),
    ]
    return ReportData(
        title=f"{len(runs)} runs compared",
        subtitle=", ".join(str(folder) for folder in folders),
        headlines=(
            Headline("runs", str(len(runs))),
            Headline("settings that differ", str(len(settings))),
        ),
        sections=tuple(sections),
        footer="trillium runs compare --html",
    )


def name_runs(folders: Sequence[Path]) -> tuple[str, ...]:
    """Return a short name per run: its folder's, or as much of the path as tells them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for size in range(1, max(map(len, parts))):
        names = tuple("/".join(one[-size:]) for one in parts)
        if len(set(names)) == len(set(parts)):
            break
    # The same folder twice is not told apart by its path.
    repeated = len(set(names)) < len(names)
    return tuple(f"{i + 1}: {name}" for i, name in enumerate(names)) if repeated else names


def _settings(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    return Table(
        "Settings that differ",
        ("setting", *names),
        tuple(tuple(row) for row in rows),
        note="A dash: the run has no such setting.",
    )


def _figures(names: Sequence[str], runs: Sequence[RunFacts]) -> Table:
    every = dict.fromkeys(name for run in runs for name in run.figures)
    rows = tuple((name, *(run.figures.get(name) for run in runs)) for name in every)
    return Table("Figures by stage", ("stage", *names), rows)


def _training(names: Sequence[str], folders: Sequence[Path], files: Sequence[str]) -> list[Section]:
    sections = []
    kept = [Path(file) for file in files if Path(file).name in JOURNALS]
    for file in sorted(kept, key=lambda file: (file.parent, JOURNALS.index(file.name))):
        journals = [read_journal(folder / file) for folder in folders]
        every = sorted(set().union(*journals), key=_rank)
        curves = [_overlay(key, names, journals) for key in every[:_MAX_CURVES]]
        if curves:
            left = len(every) - len(curves)
            intro = f"{left} more measures are not drawn." if left else ""
            sections.append(Section(f"Training: {file}", tuple(curves), intro=intro))
    return sections


def _overlay(
    key: str,
    names: Sequence[str],
    journals: Sequence[Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]],
) -> Curves:
    """Return one measure of all runs that have it."""
    known = _TITLES.get(key.removeprefix("eval_"))
    title, label = known or (key, key)
    if known and key.startswith("eval_"):
        title = f"{title}, held out"
    series = tuple(
        Series(name, *journal[key])
        for name, journal in zip(names, journals, strict=True)
        if key in journal
    )
    return Curves(title, "step", label, series)


_TITLES = {
    key: (title if len(measures) == 1 else f"{title}: {name}", label)
    for title, label, measures in TRAINING_PLOTS
    for key, name in measures
}
_ORDER = list(_TITLES)


def _rank(key: str) -> tuple[int, str]:
    plain = key.removeprefix("eval_")
    return (_ORDER.index(plain) if plain in _ORDER else len(_ORDER), key)


def _evaluations(
    names: Sequence[str], folders: Sequence[Path], files: Sequence[str]
) -> list[Section]:
    by_task: list[tuple[Cell, ...]] = []
    gains: list[tuple[Cell, ...]] = []
    named: list[tuple[Cell, ...]] = []
    for file in files:
        paths = [folder / file for folder in folders]
        values = [read_task_values(path) for path in paths]
        if any(values):
            means = [bootstrap_mean(list(one.values())) if one else None for one in values]
            by_task.append((file, *means))
            gains += _gains(file, names, values)
        measures = [read_measures(path) for path in paths]
        for system, measure in dict.fromkeys(key for one in measures for key in one):
            cells = [one.get((system, measure)) for one in measures]
            named.append((f"{system}: {measure}", *cells))
    blocks: list[Block] = []
    if by_task:
        blocks.append(Table("Right answers by task", ("results", *names), tuple(by_task)))
    if gains:
        columns = ("results", "run", "tasks", "gain", "better", "equal", "worse", "p")
        blocks.append(Table(f"Against {names[0]}", columns, tuple(gains), note=_GAIN_NOTE))
    if named:
        blocks.append(Table("Measures of systems", ("system: measure", *names), tuple(named)))
    return [Section("Evaluation", tuple(blocks), intro=_INTERVAL_NOTE)] if blocks else []


_INTERVAL_NOTE = "Under a mean: its 95 % interval, over tasks or users."
_GAIN_NOTE = (
    "On the tasks that both runs were judged on, paired task by task; p is two-sided, from "
    "exchanging the two runs within tasks. Many comparisons find something by chance."
)


def _gains(
    file: str, names: Sequence[str], values: Sequence[Mapping[str, float]]
) -> list[tuple[Cell, ...]]:
    """Compare every run with the first, where they share tasks."""
    rows: list[tuple[Cell, ...]] = []
    for name, own in zip(names[1:], values[1:], strict=True):
        shared = [task for task in values[0] if task in own]
        if shared:
            found: Comparison = compare(
                {task: values[0][task] for task in shared}, {task: own[task] for task in shared}
            )
            counts = (found.n_better, found.n_equal, found.n_worse)
            rows.append((file, name, found.n_tasks, found.gain, *counts, found.permutation_p))
    return rows


def _samples(names: Sequence[str], folders: Sequence[Path], files: Sequence[str]) -> list[Section]:
    blocks = []
    for file in files:
        texts = [read_texts(folder / file) for folder in folders]
        every = dict.fromkeys(key for one in texts for key in one)
        shared = [key for key in every if sum(key in one for one in texts) > 1]
        # What the runs answer differently says more than what they share.
        shared.sort(key=lambda key: len({one[key].is_good for one in texts if key in one}) < 2)
        if shared:
            rows = tuple(
                SampleRow(key[0], key[1], tuple(one.get(key) for one in texts))
                for key in shared[:_MAX_SAMPLES]
            )
            left = len(shared) - len(rows)
            note = "The first sample of each; marked lines are not in the first run's."
            note += f" {left:,} more prompts are not shown." if left else ""
            blocks.append(SampleRows(file, tuple(names), rows, note=note))
    return [Section("Samples", tuple(blocks))] if blocks else []
