"""Problems of a run, read, checked and kept apart, before any model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

from trillium.errors import ConfigError, DataError
from trillium.files import hash_json

from trillium_math.config import MathConfig
from trillium_math.problems import Problem
from trillium_math.problems.collection import ProblemSource, collect_problems

# Training problems are drawn with another seed than demonstrations.
_WARM_UP_SEED = 1_000_003


@dataclass(frozen=True)
class RunProblems:
    """Hold the problems of a run; `n_repeated` training problems repeated a held-out question."""

    warm_up: tuple[Problem, ...]
    train: tuple[Problem, ...]
    held_out: tuple[Problem, ...]
    n_repeated: int

    def of_round(self, number: int, n_rounds: int) -> tuple[Problem, ...]:
        """Return the training problems of one round; every problem belongs to one round."""
        return self.train[number::n_rounds]


def prepare_problems(config: MathConfig) -> RunProblems:
    """Read all sets and remove from training what repeats a held-out question.

    Raises ConfigError when a set is empty or the objective does not fit the method, DataError for
    files that cannot be used, or that give problems of both sets the same id.
    """
    config.method.check()
    seed, sources = config.seed, config.problems
    held_out = collect_problems(sources.held_out, seed=seed)
    asked = {_spell(problem) for problem in held_out}
    train = collect_problems(sources.train, seed=seed)
    kept = [problem for problem in train if _spell(problem) not in asked]
    if len(kept) < config.n_rounds:
        raise ConfigError(
            f"problems.train: {len(kept)} of {len(train)} problems are not held out as well "
            f"({config.n_rounds} rounds need one each); choose another split, or other files"
        )
    both = {problem.id for problem in kept} & {problem.id for problem in held_out}
    if both:
        raise DataError(
            f"problems: {min(both)!r} is the id of a problem in {sources.train.source} and of "
            f"another in {sources.held_out.source} (ids tell what is held out; {len(both)} such "
            "ids); rename one file if its lines have no ids, or change the ids"
        )
    shown: list[Problem] = []
    if config.warm_up is not None:
        shown = _apart(config.warm_up.problems, asked, seed=seed + _WARM_UP_SEED)
    return RunProblems(tuple(shown), tuple(kept), tuple(held_out), len(train) - len(kept))


def hash_problems(problems: Sequence[Problem]) -> str:
    """Return the hash of problems by everything a stage may read of them."""
    return hash_json(
        [[one.id, one.question, one.answer, one.solution, one.reasoning] for one in problems]
    )


def _apart(source: ProblemSource, asked: set[str], *, seed: int) -> list[Problem]:
    """Read the problems of the warm-up that are not held out; raises ConfigError for none."""
    problems = collect_problems(source, seed=seed)
    kept = [problem for problem in problems if _spell(problem) not in asked]
    if not kept:
        raise ConfigError(
            f"warm_up.problems: 0 of {len(problems)} problems are not held out as well (it needs "
            "one); choose another split, or other files, or set warm_up=null"
        )
    return kept


def _spell(problem: Problem) -> str:
    return " ".join(problem.question.split()).casefold()
