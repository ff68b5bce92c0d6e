"""The stage that searches: problems in, search trees out, resumable chunk by chunk.

A chunk of problems grows together and goes to disk whole; its seed follows from its number, so
that a stage that was killed continues to the same bytes. Nothing is begun once the budget of
sampled tokens is spent.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from trillium.environment import peak_memory_bytes
from trillium.files import read_rows
from trillium.progress import Progress
from trillium.runs import Stage

from trillium_math.agent.rollout import Roller
from trillium_math.agent.stage import chunk_seed
from trillium_math.agent.trajectory import OUTCOMES
from trillium_math.problems import Problem
from trillium_math.records import parse_records, write_records
from trillium_math.search.mcts import Search
from trillium_math.search.record import SearchTree

_CHUNKS = "chunks.jsonl"


def search_stage(
    stage: Stage,
    output: str,
    problems: Sequence[Problem],
    search: Search,
    roller: Roller,
    *,
    chunk_size: int,
    budget: int | None,
    seed: int,
) -> None:
    """Search what is missing and finish the stage; `budget` counts sampled tokens."""
    chunks = [problems[at : at + chunk_size] for at in range(0, len(problems), chunk_size)]
    found, spent = _read(stage)
    with stage.rows(_CHUNKS, key="chunk") as rows:
        n_begun = len(rows.finished)
        with Progress(
            stage.name.replace("_", " "),
            n_total=len(problems),
            n_done=len(found),
            unit="problems",
        ) as progress:
            for number in range(n_begun, len(chunks)):
                if budget is not None and spent >= budget:
                    break
                before = roller.n_sampled
                grown = search.grow(chunks[number], seed=chunk_seed(seed, number))
                sampled = roller.n_sampled - before
                plain = [asdict(tree) for tree in grown]
                rows.append({"chunk": str(number), "trees": plain, "sampled": sampled})
                found, spent = [*found, *grown], spent + sampled
                progress.advance(len(grown))
    write_records(stage.work / output, found)
    counts = {**count_trees(found), "over_budget": len(problems) - len(found)}
    peak = {"peak_memory_bytes": peak_memory_bytes()}
    stage.finish([output], {**counts, "sampled_tokens": spent, **peak})


def count_trees(found: Sequence[SearchTree]) -> dict[str, int | float]:
    """Count what the search saw: nodes, ends, and problems by how their ends were judged."""
    rewards = [[tree.nodes[i].reward == 1 for i in tree.ends] for tree in found]
    outcomes = Counter(node.outcome for tree in found for node in tree.nodes)
    return {
        "searched": len(found),
        "nodes": sum(len(tree.nodes) for tree in found),
        "ends": sum(map(len, rewards)),
        "right_ends": sum(map(sum, rewards)),
        **{f"ended_{outcome}": outcomes[outcome] for outcome in OUTCOMES if outcomes[outcome]},
        "problems_with_both": sum(any(each) and not all(each) for each in rewards),
        "problems_all_right": sum(bool(each) and all(each) for each in rewards),
        "problems_all_wrong": sum(not any(each) for each in rewards),
        "repeated_steps": sum(tree.n_repeated for tree in found),
        "environment_faults": sum(tree.n_faults for tree in found),
    }


def _read(stage: Stage) -> tuple[list[SearchTree], int]:
    """Return what is on disk of a stage that was interrupted, and the tokens it took."""
    path = stage.work / _CHUNKS
    rows = list(read_rows(path)) if path.exists() else []
    found: list[SearchTree] = []
    for row in rows:
        trees = row["trees"]
        assert isinstance(trees, list)
        found += parse_records(trees, SearchTree)
    return found, sum(int(str(row["sampled"])) for row in rows)
