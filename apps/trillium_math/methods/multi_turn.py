"""Whole trajectories against one another: M-DPO and M-KTO, and their single-turn baselines.

M-DPO and M-KTO (arXiv 2409.02392, Eq. 14 and 15) score only what the policy wrote. The baselines
`dpo` and `kto` take everything after the prompt for one response, tool output included.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field
from trillium.objectives.configs import DPOConfig, KTOConfig, ObjectiveConfig

from trillium_math.methods.method import Expected, PreferenceMethod, check_objective
from trillium_math.selection import SelectConfig, make_labelled, make_pairs

if TYPE_CHECKING:
    from trillium.runs import Stage

    from trillium_math.models import Weights
    from trillium_math.round import Round


class _Selecting(PreferenceMethod):
    """Learn from whole trajectories; `is_masked` leaves out what the policy did not write."""

    is_masked: ClassVar[bool] = True

    select: SelectConfig = Field(SelectConfig(), description="which trajectories may teach")

    def expect(self, n_problems: int, n_samples: int) -> Expected:
        """Count two paths per problem and pair, as if every problem gave them."""
        trained = self.trained_paths(2 * n_problems * self.select.n_pairs, 1)
        return Expected(n_problems * n_samples, trained)


class _Pairs(_Selecting):
    objective: ObjectiveConfig = Field(DPOConfig(), description="what to minimise")

    def check(self) -> None:
        """Raise ConfigError when the objective takes no pairs."""
        check_objective(self, "pair", example="dpo")

    def gather(self, round: "Round") -> "Stage":
        """Pair random winners with random losers of the same problem."""
        return round.select(make_pairs, self.select, is_masked=self.is_masked)


class _Labels(_Selecting):
    objective: ObjectiveConfig = Field(KTOConfig(), description="what to minimise")
    is_balanced: bool = Field(
        True, description="weigh the rarer label up, so that right and wrong count alike in KTO"
    )

    def check(self) -> None:
        """Raise ConfigError when the objective takes no labelled responses."""
        check_objective(self, "single", example="kto", offers=frozenset({"label"}))

    def gather(self, round: "Round") -> "Stage":
        """Label trajectories right or wrong; problems with one kind only are used too."""
        return round.select(make_labelled, self.select, is_masked=self.is_masked)

    def learn(self, round: "Round", gathered: "Stage") -> "Weights":
        """Align on the labelled trees, with weights that their counts call for."""
        objective = self.objective
        if self.is_balanced and isinstance(objective, KTOConfig):
            labels = [tree.labels["label"][0] for tree in round.read_trees(gathered)]
            objective = balance(objective, n_right=sum(labels), n_all=len(labels))
        return round.align(objective, self.train, gathered)


def balance(objective: KTOConfig, *, n_right: float, n_all: int) -> KTOConfig:
    """Return the objective with the rarer label's weight times how much rarer it is.

    Weighed by their counts, right and wrong responses should matter alike (arXiv 2402.01306,
    Section 4.2: between 1 and 4/3 to 1). Where eight of nine are wrong and all weigh the same, KTO
    drives the probability of everything down. With one label only there is nothing to weigh.
    """
    n_wrong = n_all - n_right
    if not n_right or not n_wrong:
        return objective
    ratio = n_wrong / n_right
    return objective.model_copy(
        update={
            "w_desirable": objective.w_desirable * max(ratio, 1.0),
            "w_undesirable": objective.w_undesirable * max(1 / ratio, 1.0),
        }
    )


class MDPOMethod(_Pairs):
    """Multi-turn DPO."""

    name: Literal["m_dpo"] = "m_dpo"


class MKTOMethod(_Labels):
    """Multi-turn KTO."""

    name: Literal["m_kto"] = "m_kto"


class DPOMethod(_Pairs):
    """Single-turn DPO, a baseline: tool output is scored as if the policy had written it."""

    is_masked: ClassVar[bool] = False
    name: Literal["dpo"] = "dpo"


class KTOMethod(_Labels):
    """Single-turn KTO, a baseline."""

    is_masked: ClassVar[bool] = False
    name: Literal["kto"] = "kto"
