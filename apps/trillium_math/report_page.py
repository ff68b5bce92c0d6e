"""The report of a run: what the shared report page shows for the mathematics application."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from trillium.evaluation import Interval
from trillium.files import write_atomically
from trillium.report.content import (
    Block,
    Cell,
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

from trillium_math.agent.trajectory import OUTCOMES, Trajectory
from trillium_math.config import MathConfig
from trillium_math.evaluation import Evaluation, Group
from trillium_math.grading import Grader
from trillium_math.pipeline import MathResult
from trillium_math.report_blocks import (
    calibration_blocks,
    curve_blocks,
    mistake_section,
    search_section,
    tree_section,
)
from trillium_math.summary import Gains, cost_rows

_MOST_SAMPLES = 12


def write_report(config: MathConfig, result: MathResult, gains: Gains) -> Path:
    """Write `report.html` into the run folder and return its path; overwrites an older one."""
    path = result.folder / "report.html"
    write_atomically(path, render_report(build_report(config, result, gains)))
    return path


def build_report(config: MathConfig, result: MathResult, gains: Gains) -> ReportData:
    """Put the results of a run into the report's terms."""
    n_trees = sum(int(r.counts["trees"]) for n, r in result.stages.items() if n[:7] == "select_")
    rate = gains.after.tool_error_rate
    seconds = {name: record.seconds for name, record in result.stages.items()}
    return ReportData(
        title="Mathematics: an agent that computes",
        subtitle=(
            f"{config.policy.base}, {config.method.title} on {n_trees} trees from "
            f"{len(result.problems.train)} training problems; judged on "
            f"{len(result.problems.held_out)} held-out problems"
        ),
        headlines=(
            *(comparison_headline(n, c) for n, c in list(gains.by_measure.items())[:1]),
            Headline("trees", str(n_trees)),
            Headline("tool errors", f"{rate:.1%}", was=f"{gains.before.tool_error_rate:.1%}"),
        ),
        sections=(
            _results(result, gains),
            *_searches(result, gains),
            Section("Training", _training(config, result)),
            Section("Samples", (_samples(result),)),
            cost_section(seconds, cost_rows(result.stages)),
            Section("Settings", (Settings("config.yaml", config.model_dump(mode="json")),)),
        ),
        footer=f"trillium math run {result.folder / 'config.yaml'}",
    )


def _results(result: MathResult, gains: Gains) -> Section:
    problems = result.problems
    seen = {one.template for one in (*problems.train, *problems.warm_up) if one.template}
    n_seen = sum(one.template in seen for one in problems.held_out)
    intro = "No template of a held-out problem was seen in training."
    if n_seen:
        intro = (
            f"{n_seen} of {len(problems.held_out)} held-out problems are new numbers in templates "
            "that were seen in training."
        )
    by: tuple[tuple[str, str, Callable[[Evaluation], Sequence[Group]]], ...] = (
        ("Accuracy by family", "family", lambda side: side.by_family),
        ("Accuracy by difficulty", "difficulty", lambda side: side.by_difficulty),
        ("Accuracy by number of turns", "turns", lambda side: side.by_turns),
    )
    return Section(
        "Result",
        (
            comparison_bars("Held-out problems", gains.by_measure, value_label="share of problems"),
            comparison_table("Paired over problems", gains.by_measure),
            *(
                _by_group(title, column, pick(gains.before), pick(gains.after))
                for title, column, pick in by
            ),
            _outcomes(gains),
        ),
        intro=intro,
    )


def _by_group(title: str, column: str, before: Sequence[Group], after: Sequence[Group]) -> Table:
    old, new = ({group.name: group for group in side} for side in (before, after))
    rows: list[tuple[Cell, ...]] = []
    for name in sorted(old.keys() | new.keys()):
        one, other = old.get(name), new.get(name)
        rows.append((name, _size(one), _accuracy(one), _size(other), _accuracy(other)))
    columns = (column, "n before", "before", "n after", "after")
    return Table(title, columns, tuple(rows))


def _size(group: Group | None) -> int:
    return group.n if group else 0


def _accuracy(group: Group | None) -> Interval | None:
    return group.accuracy if group else None


def _outcomes(gains: Gains) -> Table:
    sides = (gains.before.counts, gains.after.counts)
    names = ["trajectories", "right", "never_called", *(f"ended_{one}" for one in OUTCOMES)]
    tools = sorted({name for side in sides for name in side if name.startswith("tool_")})
    before, after = sides
    rows = [
        (name.replace("_", " "), before.get(name, 0), after.get(name, 0)) for name in names + tools
    ]
    return Table("How trajectories and tool calls ended", ("", "before", "after"), tuple(rows))


def _searches(result: MathResult, gains: Gains) -> Iterator[Section]:
    """Yield what more tokens buy at test time, the value function, and the search trees."""
    with Grader() as grader:
        sections = (
            search_section(result.before, result.after, grader.is_same),
            _values(gains),
            mistake_section(result.folder, result.stages),
            tree_section(result.folder, result.stages),
        )
    yield from (section for section in sections if section is not None)


def _values(gains: Gains) -> Section | None:
    found = gains.values
    if found is None:
        return None
    blocks: list[Block] = []
    for name, one in (
        ("Value after the prompt", found.at_start),
        ("Value at the end", found.at_end),
    ):
        if one is not None:
            blocks += calibration_blocks(name, one)
    if found.curve:
        blocks += curve_blocks([(point.strategy, point) for point in found.curve])
    return Section("Value function", tuple(blocks), "Of the policy after training.")


def _training(config: MathConfig, result: MathResult) -> tuple[Block, ...]:
    folders = [result.folder / f"train_{number}" for number in range(config.n_rounds)]
    return tuple(
        block
        for folder in folders
        if (folder / "metrics.jsonl").is_file()
        for block in training_curves(read_metrics(folder))
    )


def _samples(result: MathResult) -> SamplePairs:
    """Show problems whose results changed most, gains and losses alike."""
    sides: list[dict[str, list[Trajectory]]] = []
    for found in (result.before, result.after):
        groups: dict[str, list[Trajectory]] = {}
        for one in found:
            groups.setdefault(one.problem_id, []).append(one)
        sides.append(groups)
    old, new = sides
    change = {id: _n_right(new[id]) - _n_right(old[id]) for id in old}
    shown = sorted(change, key=lambda id: -abs(change[id]))[:_MOST_SAMPLES]
    questions = {problem.id: problem for problem in result.problems.held_out}
    return SamplePairs(
        "Held-out problems that changed most",
        "before",
        "after",
        tuple(
            SamplePair(
                f"{id}: {_n_right(old[id])}/{len(old[id])} before, "
                f"{_n_right(new[id])}/{len(new[id])} after",
                f"{questions[id].question}\n[answer: {questions[id].answer}]",
                _show(old[id], is_right=change[id] < 0),
                _show(new[id], is_right=change[id] > 0),
            )
            for id in shown
        ),
        note="of the trajectories of a problem, the first one that shows the change",
    )


def _n_right(group: Sequence[Trajectory]) -> int:
    return sum(one.is_right for one in group)


def _show(group: Sequence[Trajectory], *, is_right: bool) -> Sample:
    one = next((one for one in group if one.is_right is is_right), group[0])
    text = "\n".join(turn.content for turn in one.turns[1:])
    return Sample(text, "right" if one.is_right else one.outcome, one.is_right)
