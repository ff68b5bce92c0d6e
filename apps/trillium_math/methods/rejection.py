"""Rejection sampling: imitate the policy's own right trajectories (RAFT, arXiv 2304.06767)."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trillium_math.methods.method import Expected, Method
from trillium_math.selection import SelectConfig, choose_right
from trillium_math.supervised_config import SupervisedConfig

if TYPE_CHECKING:
    from trillium.runs import Stage

    from trillium_math.models import Weights
    from trillium_math.round import Round


class RejectionMethod(Method):
    """Fine-tune on right trajectories, the same number per problem."""

    name: Literal["rejection"] = "rejection"
    select: SelectConfig = Field(SelectConfig(), description="which trajectories may teach")
    imitate: SupervisedConfig = Field(
        SupervisedConfig(learning_rate=2e-4), description="how to imitate them"
    )

    @property
    def title(self) -> str:
        """Name the method."""
        return "rejection sampling"

    def check(self) -> None:
        """Accept everything: there is no objective to choose."""

    def gather(self, round: "Round") -> "Stage":
        """Choose right trajectories."""
        return round.select(choose_right, self.select, is_masked=True)

    def learn(self, round: "Round", gathered: "Stage") -> "Weights":
        """Imitate them."""
        return round.imitate(self.imitate, gathered)

    def expect(self, n_problems: int, n_samples: int) -> Expected:
        """Count one path per problem and `n_pairs`, as if every problem gave them."""
        trained = n_problems * self.select.n_pairs * self.imitate.num_train_epochs
        return Expected(n_problems * n_samples, trained)
