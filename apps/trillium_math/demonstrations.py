"""Demonstrations of tool use, made from problems whose solution is known, as trajectories.

The tool really runs: what stands in a demonstration is what the sandbox printed. A problem whose
solution does not print its answer makes no demonstration and is counted.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from trillium.errors import DataError

from trillium_math.agent.dialogue import Dialogue
from trillium_math.agent.tool import PythonTool
from trillium_math.agent.trajectory import Trajectory, Turn
from trillium_math.grading import Grader
from trillium_math.problems import Problem

_OPENINGS = (
    "Let me compute this.",
    "I will write a short program.",
    "I use Python for this.",
    "A few lines of code give the result.",
)


@dataclass(frozen=True)
class Demonstrations:
    """Hold the trajectories, and the problems that gave none."""

    trajectories: tuple[Trajectory, ...]
    unusable: tuple[str, ...]


def demonstrate(
    problems: Sequence[Problem],
    dialogue: Dialogue,
    tool: PythonTool,
    grader: Grader,
    *,
    max_tokens: int,
) -> Demonstrations:
    """Write one trajectory per problem: code, its real output, and the boxed answer.

    Raises DataError when no problem gives one.
    """
    solvable = [problem for problem in problems if problem.solution]
    results = tool.run([[problem.solution] for problem in solvable])
    made = []
    for problem, result in zip(solvable, results, strict=True):
        if result.status == "ok" and grader.is_same(problem.answer, result.output):
            trajectory = _write(problem, result.output, dialogue)
            if len(trajectory.token_ids) <= max_tokens:
                made.append(trajectory)
    if not made:
        raise DataError(
            f"warm_up: none of {len(problems)} problems gives a demonstration (each needs a "
            "solution that prints its answer, and room in agent.max_tokens); use source=own, or "
            "add solutions"
        )
    names = {trajectory.problem_id for trajectory in made}
    unusable = tuple(problem.id for problem in problems if problem.id not in names)
    return Demonstrations(tuple(made), unusable)


def _write(problem: Problem, output: str, dialogue: Dialogue) -> Trajectory:
    opening = _OPENINGS[hashlib.sha256(problem.id.encode()).digest()[0] % len(_OPENINGS)]
    call = f"{opening}\n```python\n{problem.solution}\n```"
    answer = f"The answer is \\boxed{{{problem.answer}}}."
    message = dialogue.tool_message(output)
    prompt = dialogue.encode_prompt(problem.question)
    first, last = dialogue.encode_turn(call), dialogue.encode_turn(answer)
    between = dialogue.encode_between(first, message)
    start = len(prompt) + len(first) + len(between)
    return Trajectory(
        id=f"{problem.id}#demonstration",
        problem_id=problem.id,
        gold=problem.answer,
        turns=(
            *(Turn(m.role, m.text) for m in dialogue.prompt_messages(problem.question)),
            Turn("assistant", call),
            Turn(message.role, message.text, "ok"),
            Turn("assistant", answer),
        ),
        token_ids=(*prompt, *first, *between, *last),
        spans=((len(prompt), len(prompt) + len(first)), (start, start + len(last))),
        outcome="answered",
        answer=problem.answer,
        reward=1.0,
        policy="demonstration",
    )
