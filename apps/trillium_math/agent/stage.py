"""The stage that rolls out: problems in, trajectories out, resumable chunk by chunk."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

from trillium.environment import peak_memory_bytes
from trillium.files import read_rows
from trillium.generation import Generator, SamplingConfig
from trillium.progress import Progress
from trillium.runs import Stage

from trillium_math.agent.config import AgentConfig
from trillium_math.agent.dialogue import Dialogue
from trillium_math.agent.rollout import Roller
from trillium_math.agent.tool import PythonTool
from trillium_math.agent.trajectory import OUTCOMES, Trajectory
from trillium_math.grading import Grader
from trillium_math.problems import Problem
from trillium_math.records import parse_records, read_records, write_records

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHUNKS = "chunks.jsonl"
_COUNTED = ("sampled_tokens", "tool_runs", "grader_timeouts")


Work = Callable[[Sequence[Problem], int], list[Trajectory]]
"""Problems and a seed in, their trajectories out."""


def rollout_stage(
    stage: Stage,
    output: str,
    problems: Sequence[Problem],
    tokenizer: "Callable[[], PreTrainedTokenizerBase]",
    open_work: Callable[[Roller], Work],
    agent: AgentConfig,
    *,
    policy: str,
    chunk_size: int,
    seed: int,
) -> list[Trajectory]:
    """Return the trajectories of each problem; when the stage is due, roll out what is missing.

    A chunk of `chunk_size` problems goes to disk whole and has a seed of its own, so that a stage
    that was killed continues to the same bytes. `open_work` loads what samples.
    """
    if stage.is_due:
        chunks = [problems[start : start + chunk_size]
                  for start in range(0, len(problems), chunk_size)]  # fmt: skip
        with ExitStack() as stack:
            backend = stack.enter_context(agent.tool.open())
            grader = stack.enter_context(Grader(sources=agent.answer_sources))
            tool = PythonTool(backend, agent.tool)
            roller = Roller(Dialogue(tokenizer(), agent), tool, grader, agent, policy=policy)
            _roll_out(
                stage,
                chunks,
                open_work(roller),
                lambda: (roller.n_sampled, tool.n_runs, grader.n_timeouts),
                seed,
            )
        rows = list(read_rows(stage.work / _CHUNKS))
        found = [trajectory for row in rows for trajectory in _of(row)]
        trajectories = parse_records(found, Trajectory)
        (stage.work / output).parent.mkdir(parents=True, exist_ok=True)
        write_records(stage.work / output, trajectories)
        counts = {name: sum(int(str(row[name])) for row in rows) for name in _COUNTED}
        peak = {"peak_memory_bytes": peak_memory_bytes()}
        stage.finish([output], {**count_outcomes(trajectories), **counts, **peak})
    return read_records(stage.path(output), Trajectory)


def sample_work(
    open_generator: Callable[[], Generator], sampling: SamplingConfig
) -> Callable[[Roller], Work]:
    """Return what opens plain sampling: `sampling.n_samples` trajectories of every problem."""

    def open_work(roller: Roller) -> Work:
        generator = open_generator()
        return lambda problems, seed: roller.roll_out(problems, generator, sampling, seed=seed)

    return open_work


def count_outcomes(trajectories: Iterable[Trajectory]) -> dict[str, int]:
    """Count how trajectories ended, how their tool calls did, and what was sampled."""
    found = list(trajectories)
    ends = Counter(trajectory.outcome for trajectory in found)
    calls = Counter(status for trajectory in found for status in trajectory.tool_statuses)
    return {
        "trajectories": len(found),
        "right": sum(trajectory.is_right for trajectory in found),
        "never_called": sum(not trajectory.tool_statuses for trajectory in found),
        **{f"ended_{outcome}": ends[outcome] for outcome in OUTCOMES},
        "tool_calls": sum(calls.values()),
        **{f"tool_{status}": count for status, count in sorted(calls.items())},
        "tokens": sum(end - start for one in found for start, end in one.spans),
    }


def _roll_out(
    stage: Stage,
    chunks: Sequence[Sequence[Problem]],
    work: Work,
    count: Callable[[], tuple[int, ...]],
    seed: int,
) -> None:
    """Roll out the chunks that are missing; `count` tells `_COUNTED` of this process so far."""
    with stage.rows(_CHUNKS, key="chunk") as rows:
        finished = [number for number in range(len(chunks)) if str(number) in rows.finished]
        with Progress(
            stage.name.replace("_", " "),
            n_total=sum(map(len, chunks)),
            n_done=sum(len(chunks[number]) for number in finished),
            unit="problems",
        ) as progress:
            for number, chunk in enumerate(chunks):
                if number in finished:
                    continue
                before = count()
                rolled = work(chunk, chunk_seed(seed, number))
                plain = [_printable(asdict(trajectory)) for trajectory in rolled]
                spent = (now - then for now, then in zip(count(), before, strict=True))
                counts = dict(zip(_COUNTED, spent, strict=True))
                rows.append({"chunk": str(number), "trajectories": plain, **counts})
                progress.advance(len(chunk))


def _of(row: dict[str, object]) -> list[object]:
    trajectories = row["trajectories"]
    assert isinstance(trajectories, list)
    return trajectories


def _printable(value: object) -> object:
    """Replace half surrogates, which a file cannot hold; token ids keep what was sampled."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _printable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(entry) for entry in value]
    return value


def chunk_seed(seed: int, number: int) -> int:
    """Return the seed of one chunk of a stage."""
    digest = hashlib.sha256(f"{seed}/chunk/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
