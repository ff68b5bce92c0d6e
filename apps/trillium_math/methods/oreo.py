"""OREO (arXiv 2412.16145): policy and value function from graded trajectories, no pairs needed.

Every trajectory teaches, those of problems that were never solved too. The value head is saved
beside the adapter; a later round goes on with it, and a search at test time reads it.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator
from trillium.objectives.configs import ObjectiveConfig
from trillium.objectives.recipe_configs import OREOConfig
from trillium.runs import hash_config
from trillium.training.config import TrainConfig
from trillium.trees import TokenTree

from trillium_math.agent.steps import StepUnit, split_steps
from trillium_math.agent.trajectory import Trajectory
from trillium_math.methods.method import Expected, PreferenceMethod, check_objective
from trillium_math.selection import SelectConfig, count_sorted, shuffled, sort_trajectories

if TYPE_CHECKING:
    from trillium.runs import Stage

    from trillium_math.agent.dialogue import Dialogue
    from trillium_math.round import Round

# A trajectory that reached a limit earned nothing, and the value function should know.
_SELECT = SelectConfig(
    n_pairs=4,
    winner_calls_tool=False,
    loser_outcomes=("answered", "no_answer", "turn_limit", "turn_too_long", "token_limit"),
)


class OREOMethod(PreferenceMethod):
    """Learn values and policy together, at the level of tokens, steps or whole responses."""

    name: Literal["oreo"] = "oreo"
    objective: ObjectiveConfig = Field(
        OREOConfig(value_learning_rate=1e-3), description="what to minimise: oreo"
    )
    train: TrainConfig = Field(TrainConfig(), description="how to minimise it")
    select: SelectConfig = Field(
        _SELECT, description="which trajectories teach: n_pairs right and as many wrong ones"
    )
    unit: StepUnit = Field(
        "line", description="what a step is, for objective.level=step: a line, or a turn"
    )
    max_right_share: float = Field(
        0.5, gt=0, le=1, description="right ones beyond this share of a problem are left out"
    )

    @model_validator(mode="after")
    def _objective_has_values(self) -> Self:
        if not isinstance(self.objective, OREOConfig):
            raise ValueError(
                f"method oreo trains a value function, and objective {self.objective.name} has "
                "none; set method.objective.name=oreo, or choose another method"
            )
        return self

    def check(self) -> None:
        """Raise ConfigError for an option that no run of this method could honour."""
        check_objective(self, "token", example="oreo", offers=frozenset({"reward"}))

    def expect(self, n_problems: int, n_samples: int) -> Expected:
        """Count `n_pairs` right and as many wrong trajectories of every problem."""
        per_problem = min(2 * self.select.n_pairs, n_samples)
        return Expected(n_problems * n_samples, self.trained_paths(n_problems * per_problem, 1))

    def most_right(self, n_wrong: int) -> int:
        """Return how many right trajectories may stand beside `n_wrong` of the same problem."""
        # As it was written: with floats 0.6 would leave 2 right ones beside 2 wrong ones, not 3.
        share = Fraction(str(self.max_right_share))
        if share == 1:
            return self.select.n_pairs
        return min(self.select.n_pairs, max(1, int(n_wrong * share / (1 - share))))

    def gather(self, round: "Round") -> "Stage":
        """Sample, and keep trajectories of both kinds with their rewards and steps."""
        from trillium_math.round import Gathered

        rolled = round.sample()

        def gather() -> Gathered:
            every = [one for part in rolled for one in part.trajectories]
            groups = sort_trajectories(every, self.select)
            seed, n_each = round.config.seed, self.select.n_pairs
            chosen: list[Trajectory] = []
            for group in groups:
                wrong = shuffled(group.losers, group.problem_id, seed)[:n_each]
                right = shuffled(group.winners, group.problem_id, seed)
                chosen += [*right[: self.most_right(len(wrong))], *wrong]
            return Gathered(self._trees(chosen, round.dialogue()), count_sorted(groups))

        inputs = {part.stage.name: part.stage.hash for part in rolled}
        settings = {"method": self.gathering_hash(), "agent": hash_config(round.config.agent)}
        return round.keep_trees({**inputs, **settings}, gather)

    def _trees(self, chosen: Sequence[Trajectory], dialogue: "Dialogue") -> list[TokenTree]:
        """Return a tree of one path per trajectory; its steps count the policy's tokens."""
        trees = []
        for one in chosen:
            steps = split_steps(one.token_ids, one.spans, dialogue.decode, unit=self.unit)
            counts = (tuple(end - start for start, end in steps),)
            labels = {"reward": (float(one.is_right),)}
            trees.append(TokenTree.from_paths(one.id, (one.path,), labels, steps=counts))
        return trees
