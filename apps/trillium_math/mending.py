"""The stage that mends: wrong trajectories in, pairs of steps out, resumable chunk by chunk.

A problem that has its pairs is not mended again, and nothing is begun once the budget of sampled
tokens is spent; both follow from the rows on disk, so that a stage that was killed continues to
the same bytes.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

from trillium.environment import peak_memory_bytes
from trillium.files import read_rows
from trillium.progress import Progress
from trillium.runs import Stage

from trillium_math.agent.stage import chunk_seed
from trillium_math.agent.steps import StepUnit
from trillium_math.localisation.mistake import Localiser, Mistake, Toolbox
from trillium_math.records import parse_records, write_records
from trillium_math.rectification import Mended, rectify
from trillium_math.selection import SelectConfig

_CHUNKS = "chunks.jsonl"


@dataclass(frozen=True)
class MendPlan:
    """Say how a stage mends: chunk size in trajectories, budget in sampled tokens or None."""

    select: SelectConfig
    unit: StepUnit
    n_samples: int
    chunk_size: int
    budget: int | None
    seed: int


def mend_stage(
    stage: Stage,
    output: str,
    mistakes: Sequence[Mistake],
    localiser: Localiser,
    toolbox: Toolbox,
    plan: MendPlan,
    counts: Mapping[str, int | float],
) -> None:
    """Mend what is missing and finish the stage; `counts` are those of the collection."""
    done, spent = _read(stage)
    queue = iter(_without_done(mistakes, done, plan.select.n_pairs))
    n_begun = len(done)
    with (
        stage.rows(_CHUNKS, key="chunk") as rows,
        Progress(stage.name.replace("_", " "), n_total=len(mistakes), n_done=n_begun,
                 unit="trajectories") as progress,
    ):  # fmt: skip
        number = len(rows.finished)
        while plan.budget is None or spent < plan.budget:
            chunk = list(islice(queue, plan.chunk_size))
            if not chunk:
                break
            before, seed = toolbox.roller.n_sampled, chunk_seed(plan.seed, number)
            found = localiser.locate(chunk, seed=seed)
            mended = rectify(
                chunk, found, toolbox, plan.select, unit=plan.unit, n_samples=plan.n_samples,
                seed=seed + 1,
            )  # fmt: skip
            sampled = toolbox.roller.n_sampled - before
            plain = [asdict(one) for one in mended]
            rows.append({"chunk": str(number), "mended": plain, "sampled": sampled})
            done, spent, number = [*done, *mended], spent + sampled, number + 1
            queue = iter(_without_done(mistakes, done, plan.select.n_pairs))
            progress.advance(len(chunk))
    write_records(stage.work / output, done)
    left = len(list(queue))
    peak = {"peak_memory_bytes": peak_memory_bytes()}
    stage.finish([output], {**counts, **count_mended(done), "over_budget": left,
                            "sampled_tokens": spent, **peak})  # fmt: skip


def count_mended(found: Sequence[Mended]) -> dict[str, int]:
    """Count trajectories by what became of them, and by what the localiser said."""
    ends = Counter(one.end for one in found)
    why = Counter(one.why.replace(" ", "_") for one in found)
    return {
        **{end: ends[end] for end in ("paired", "not_located", "no_right_continuation")},
        "same_step": ends["same_step"],
        **{f"located_by_{name}": count for name, count in sorted(why.items())},
    }


def _read(stage: Stage) -> tuple[list[Mended], int]:
    """Return what is on disk of a stage that was interrupted, and the tokens it took."""
    path = stage.work / _CHUNKS
    rows = list(read_rows(path)) if path.exists() else []
    mended = [one for row in rows for one in parse_records(_list(row["mended"]), Mended)]
    return mended, sum(int(str(row["sampled"])) for row in rows)


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def _without_done(
    mistakes: Sequence[Mistake], done: Sequence[Mended], n_pairs: int
) -> Iterator[Mistake]:
    """Return what was not tried, without the problems that have all their pairs."""
    tried = {one.id for one in done}
    paired = Counter(one.problem_id for one in done if one.end == "paired")
    for one in mistakes:
        if one.trajectory.id not in tried and paired[one.problem.id] < n_pairs:
            yield one
