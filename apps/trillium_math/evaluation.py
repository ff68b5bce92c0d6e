"""What trajectories are worth: accuracy, pass@k, majority vote, and where errors come from.

Pure functions of graded trajectories. Means are over problems, with bootstrap intervals over
problems; trajectories that the sandbox lost are left out and counted. A measure that a problem has
too few trajectories left for, such as pass@4 with three, is averaged over the other problems.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trillium.errors import DataError
from trillium.evaluation import Comparison, Interval, bootstrap_mean, compare, pass_at_k

from trillium_math.agent.stage import count_outcomes
from trillium_math.agent.trajectory import Trajectory
from trillium_math.grading import Grader
from trillium_math.problems import Problem
from trillium_math.problems.problem_files import read_problems
from trillium_math.records import read_records
from trillium_math.voting import SameAnswer, cluster_answers, majority_at_k, majority_is_right


@dataclass(frozen=True)
class Measured:
    """Hold the values of each problem, by measure: accuracy, pass@k, majority."""

    by_problem: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Group:
    """Hold the accuracy of a group of problems, or of the trajectories with so many turns."""

    name: str
    n: int
    accuracy: Interval


@dataclass(frozen=True)
class Evaluation:
    """Hold what was measured of one policy; `n_problems` counts those that have a measure."""

    measures: Mapping[str, Interval]
    n_problems: Mapping[str, int]
    by_family: tuple[Group, ...]
    by_difficulty: tuple[Group, ...]
    by_turns: tuple[Group, ...]
    tool_error_rate: float
    counts: Mapping[str, int]


def evaluate(
    problems: Sequence[Problem],
    trajectories: Sequence[Trajectory],
    ks: Sequence[int],
    same: SameAnswer,
    *,
    seed: int = 0,
) -> Evaluation:
    """Measure one policy's trajectories; `same` says whether two answers are the same."""
    measured = measure(trajectories, ks, same).by_problem
    found = {
        name: [values[name] for values in measured.values() if name in values]
        for name in _names(measured)
    }
    counts = count_outcomes(trajectories)
    failed = counts["tool_calls"] - counts.get("tool_ok", 0) - counts.get("tool_lost", 0)
    accuracy = {id: values["accuracy"] for id, values in measured.items()}
    known = {problem.id: problem for problem in problems}
    return Evaluation(
        measures={name: bootstrap_mean(values, seed=seed) for name, values in found.items()},
        n_problems={name: len(values) for name, values in found.items()},
        by_family=_group(accuracy, {id: known[id].family for id in accuracy}, seed),
        by_difficulty=_group(accuracy, {id: str(known[id].difficulty) for id in accuracy}, seed),
        by_turns=_by_turns(trajectories, seed),
        tool_error_rate=failed / max(1, counts["tool_calls"]),
        counts=counts,
    )


def evaluate_files(trajectories: Path, problems: Path, ks: Sequence[int]) -> Evaluation:
    """Measure a file of trajectories; raises DataError when the files do not belong together."""
    if not trajectories.is_file():
        raise DataError(
            f"{trajectories}: there is no such file (needs what `trillium math solve` wrote); "
            "check the path"
        )
    try:
        found = read_records(trajectories, Trajectory)
    except ValueError as error:
        raise DataError(
            f"{trajectories}: holds no trajectories ({str(error).splitlines()[0]}); give the "
            "trajectories.jsonl that `trillium math solve` wrote"
        ) from error
    known = read_problems(problems)
    missing = {one.problem_id for one in found} - {problem.id for problem in known}
    if missing:
        raise DataError(
            f"{problems}: lacks {len(missing)} problems of {trajectories}, the first is "
            f"{min(missing)}; give the file that was solved"
        )
    with Grader() as grader:
        result = evaluate(known, found, ks, grader.is_same)
    if (f"pass@{max(ks)}" if max(ks) > 1 else "accuracy") not in result.measures:
        raise DataError(
            f"{trajectories}: no problem has {max(ks)} judged trajectories (pass@{max(ks)} needs "
            "that many); solve with more samples, or lower k"
        )
    return result


def measure(trajectories: Sequence[Trajectory], ks: Sequence[int], same: SameAnswer) -> Measured:
    """Return accuracy, majority vote, and pass@k where k samples were judged, of each problem."""
    groups: dict[str, list[Trajectory]] = {}
    for one in trajectories:
        if one.reward is not None:
            groups.setdefault(one.problem_id, []).append(one)
    return Measured({id: _measure_one(group, ks, same) for id, group in groups.items()})


def compare_policies(
    before: Sequence[Trajectory],
    after: Sequence[Trajectory],
    ks: Sequence[int],
    same: SameAnswer,
    *,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Compare two policies, measure by measure, on the problems that have it of both."""
    old, new = (measure(side, ks, same).by_problem for side in (before, after))
    found = {}
    for name in _names(old):
        shared = [id for id in old if name in old[id] and name in new.get(id, {})]
        if shared:
            one, other = ({id: side[id][name] for id in shared} for side in (old, new))
            found[name] = compare(one, other, seed=seed)
    return found


def _names(measured: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return what is measured of any problem: the one with most samples has every measure."""
    return max(map(list, measured.values()), key=len, default=[])


def _measure_one(
    group: Sequence[Trajectory], ks: Sequence[int], same: SameAnswer
) -> dict[str, float]:
    right = [one.is_right for one in group]
    above = [k for k in ks if 1 < k <= len(group)]
    numbers = cluster_answers(group, same)
    votes = {f"maj@{k}": majority_at_k(numbers, right, k) for k in above if k < len(group)}
    return {
        "accuracy": sum(right) / len(group),
        **{f"pass@{k}": pass_at_k(len(group), sum(right), k) for k in above},
        **votes,
        "majority": float(majority_is_right(group, same)),
    }


def _group(values: Mapping[str, float], names: Mapping[str, str], seed: int) -> tuple[Group, ...]:
    groups: dict[str, list[float]] = {}
    for id, value in values.items():
        groups.setdefault(names[id], []).append(value)
    return tuple(
        Group(name, len(groups[name]), bootstrap_mean(groups[name], seed=seed))
        for name in sorted(groups)
    )


def _by_turns(trajectories: Sequence[Trajectory], seed: int) -> tuple[Group, ...]:
    """Group trajectories by their turns; within a group, resample problems."""
    groups: dict[int, dict[str, list[float]]] = {}
    for one in trajectories:
        if one.reward is not None:
            group = groups.setdefault(one.n_policy_turns, {})
            group.setdefault(one.problem_id, []).append(one.reward)
    return tuple(
        Group(
            str(n_turns),
            sum(map(len, group.values())),
            bootstrap_mean([sum(r) / len(r) for r in group.values()], seed=seed),
        )
        for n_turns, group in sorted(groups.items())
    )
