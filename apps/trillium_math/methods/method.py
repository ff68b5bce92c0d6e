"""What a method is: its own settings, how it gathers what it learns from, and how it learns.

A run knows nothing of pairs, steps or trees: it hands every round to its method. A method is a
frozen configuration with a `name` of its own; `table.MethodConfig` is the union of all of them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field
from trillium.errors import ConfigError
from trillium.files import hash_json
from trillium.objectives.configs import ObjectiveConfig
from trillium.training.config import TrainConfig

if TYPE_CHECKING:
    from trillium.objectives.batch import Shape
    from trillium.runs import Stage

    from trillium_math.models import Weights
    from trillium_math.round import Round


@dataclass(frozen=True)
class Expected:
    """Say about how many trajectories a round samples, and how many paths its training reads."""

    sampled: int
    trained: int


class Method(BaseModel, ABC):
    """Turn one round of a run into new weights, by stages that can be resumed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    @abstractmethod
    def title(self) -> str:
        """Name the method and what it minimises, for reports."""

    @abstractmethod
    def check(self) -> None:
        """Raise ConfigError for settings that do not fit, before any model is loaded."""

    @abstractmethod
    def gather(self, round: "Round") -> "Stage":
        """Return the finished stage that holds the trees to learn from, as `keep_trees` does."""

    @abstractmethod
    def learn(self, round: "Round", gathered: "Stage") -> "Weights":
        """Return the weights that training on the gathered trees ends in."""

    def within_budget(self, n_tokens: int) -> Self:
        """Return the method with so many sampled tokens at most, where it samples for itself.

        Such a method has the field `max_sampled_tokens`; one that is set already stays.
        """
        if getattr(self, "max_sampled_tokens", n_tokens) is not None:
            return self
        return self.model_copy(update={"max_sampled_tokens": n_tokens})

    @abstractmethod
    def expect(self, n_problems: int, n_samples: int) -> Expected:
        """Say what a round of so many problems and trajectories per problem costs."""


class PreferenceMethod(Method):
    """Train with an objective; the reference is the policy that the round starts from."""

    objective: ObjectiveConfig
    train: TrainConfig = Field(TrainConfig(), description="how to minimise it")

    @property
    def title(self) -> str:
        """Name the method and its objective."""
        return f"{method_name(self)} ({self.objective.name})"

    def learn(self, round: "Round", gathered: "Stage") -> "Weights":
        """Align on the gathered trees."""
        return round.align(self.objective, self.train, gathered)

    def gathering_hash(self) -> str:
        """Return the hash of all that gathering may read: everything but how it is learned."""
        return hash_json(self.model_dump(mode="json", exclude={"objective", "train"}))

    def trained_paths(self, n_trees: int, paths_per_tree: int) -> int:
        """Return how many paths training reads, with its epochs or its steps."""
        train = self.train
        if train.max_steps is not None:
            return train.max_steps * train.trees_per_step() * paths_per_tree
        return int(n_trees * paths_per_tree * train.num_train_epochs)


def method_name(method: Method) -> str:
    """Return the name that chooses a method in a run file."""
    return str(type(method).model_fields["name"].default)


def check_objective(
    method: PreferenceMethod, shape: "Shape", *, example: str, offers: frozenset[str] = frozenset()
) -> None:
    """Raise ConfigError unless the objective takes trees of this shape.

    `offers` are the labels and columns that the method's trees have.
    """
    from trillium.objectives.table import needs_of
    from trillium.training.fit import check_options

    objective = method.objective
    check_options(objective, method.train, n_held_out=0)
    needs = needs_of(objective)
    wanted = {*needs.labels, *needs.columns, *needs.paths, *needs.behind}
    missing = sorted(wanted - offers)
    if needs.shape != shape or missing or needs.prompts:
        lacking = f" with {', '.join(missing)}" if missing else ""
        raise ConfigError(
            f"method.objective: {objective.name} does not fit method {method_name(method)} (it "
            f"needs {needs.shape} trees{lacking}); set method.objective.name={example}, or another "
            "method"
        )
