"""Blocks of the report for test-time search, calibration, steps and search trees."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from trillium.errors import DataError
from trillium.report.content import Block, Curves, Section, Series, Table

from trillium_math.agent.trajectory import Trajectory
from trillium_math.calibration import Calibration
from trillium_math.records import read_records
from trillium_math.rectification import Mended
from trillium_math.search.measures import calibrate_judgement, measure_tree_steps
from trillium_math.search.record import SearchTree
from trillium_math.search_curves import SearchPoint, pool_curves
from trillium_math.step_accuracy import StepAccuracy, measure_steps
from trillium_math.voting import SameAnswer


def search_section(
    before: Sequence[Trajectory], after: Sequence[Trajectory], same: SameAnswer
) -> Section | None:
    """Return accuracy against tokens for both policies; None without enough judged samples."""
    points: list[tuple[str, SearchPoint]] = []
    for side, pool in (("before", before), ("after", after)):
        sizes: dict[str, int] = {}
        for one in pool:
            sizes[one.problem_id] = sizes.get(one.problem_id, 0) + (one.reward is not None)
        largest = max(sizes.values(), default=0)
        ks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= largest]
        try:
            found = pool_curves(pool, ks, same) if len(ks) > 1 else ()
        except DataError:
            found = ()
        points += [(f"{point.strategy}, {side}", point) for point in found]
    return Section("Test-time search", curve_blocks(points), _SEARCH_INTRO) if points else None


_SEARCH_INTRO = (
    "What more samples buy: a vote of K, and an oracle that knows a right answer when it sees one. "
    "A point of K samples is an expectation over subsets of the samples that were drawn."
)


def curve_blocks(points: Sequence[tuple[str, SearchPoint]]) -> tuple[Block, ...]:
    """Return a plot and a table of named points of accuracy against tokens."""
    names = list(dict.fromkeys(name for name, _ in points))
    groups = {name: [point for other, point in points if other == name] for name in names}
    plot = Curves(
        "Accuracy against tokens",
        "sampled tokens per problem",
        "share of problems",
        tuple(
            Series(
                name,
                tuple(point.tokens for point in group),
                tuple(point.accuracy.mean for point in group),
            )
            for name, group in groups.items()
        ),
    )
    rows = tuple((name, point.budget, point.tokens, point.accuracy) for name, point in points)
    return plot, Table("Points", ("strategy", "K", "tokens", "accuracy"), rows)


def calibration_blocks(title: str, found: Calibration) -> tuple[Block, ...]:
    """Return a reliability plot and the numbers of a value function."""
    plot = Curves(
        f"{title}: predicted and met",
        "mean prediction",
        "share that was right",
        (
            Series(
                "met",
                tuple(one.prediction for one in found.bins),
                tuple(one.outcome for one in found.bins),
            ),
            Series("calibrated", (0.0, 1.0), (0.0, 1.0)),
        ),
    )
    rows = (
        ("predictions", found.n),
        ("expected calibration error", found.ece),
        ("Brier score", found.brier),
        ("Brier score of always predicting the mean", found.base_brier),
        ("chance that a right one ranks above a wrong one", found.auc),
        ("predictions outside 0 to 1", found.n_clipped),
    )
    return plot, Table(title, ("", "value"), rows)


def step_table(title: str, found: StepAccuracy) -> Table:
    """Return how many steps are right, by position, and where trajectories go wrong."""
    rows = tuple(
        (number, n, right / n, found.first_error.get(number - 1, 0))
        for number, (n, right) in enumerate(found.by_position, start=1)
    )
    note = (
        f"{found.n_steps} steps of {found.n_trajectories} trajectories; right steps "
        f"{found.accuracy.mean:.3f}, trajectories without a wrong step "
        f"{found.without_error.mean:.3f}."
    )
    return Table(title, ("step", "n", "share right", "first errors"), rows, note)


def tree_section(folder: Path, stages: Iterable[str]) -> Section | None:
    """Return what the search trees of a run's stages showed; None when the run searched nothing."""
    files = _outputs(folder, stages, "search_")
    found = [tree for file in files for tree in read_records(file, SearchTree)]
    if not found:
        return None
    blocks: list[Block] = []
    steps, judgement = measure_tree_steps(found), calibrate_judgement(found)
    if steps is not None:
        blocks.append(step_table("Steps of the search trees", steps))
    if judgement is not None:
        blocks += calibration_blocks("The policy's judgement of finished solutions", judgement)
    n_nodes = sum(len(tree.nodes) for tree in found)
    said = "A step is wrong when nothing below it ended well."
    return Section("Search trees", tuple(blocks), f"{len(found)} trees, {n_nodes} nodes. {said}")


def mistake_section(folder: Path, stages: Iterable[str]) -> Section | None:
    """Return where wrong trajectories went wrong, by what located it; None without Step-DPO."""
    files = _outputs(folder, stages, "mend_")
    found = [one for file in files for one in read_records(file, Mended)]
    verdicts = {
        one.id: tuple(number < one.step for number in range(one.n_steps))
        for one in found
        if one.step is not None
    }
    if not verdicts:
        return None
    located = f"{len(verdicts)} of {len(found)} wrong trajectories have a first wrong step."
    table = step_table("Steps of wrong trajectories", measure_steps(verdicts))
    return Section("First wrong steps", (table,), located)


def _outputs(folder: Path, stages: Iterable[str], prefix: str) -> list[Path]:
    """Return the files of the stages of one kind; the folder may hold those of an earlier run."""
    return [folder / f"{name}.jsonl" for name in stages if name.startswith(prefix)]
