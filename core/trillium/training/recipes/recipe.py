"""What an iterative method is: where trees come from, what is minimised, and what comes next.

Only the words; `rounds.run_rounds` acts on them, and the methods themselves are beside this file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from peft import PeftModel
from torch import nn

from trillium.errors import ConfigError
from trillium.generation.interface import Completion, SamplingConfig
from trillium.objectives.configs import ObjectiveConfig
from trillium.training.round_rows import Candidates, Prompt
from trillium.trees import TokenTree


@runtime_checkable
class Judge(Protocol):
    """Whatever can tell good completions of a prompt from bad ones."""

    @property
    def identity(self) -> str:
        """Name the judge and its version; under another identity everything is scored anew."""
        ...

    def score(self, prompt: Prompt, completions: Sequence[Completion]) -> Sequence[float]:
        """Return one finite number per completion."""
        ...


@runtime_checkable
class Selection(Protocol):
    """How the scored completions of a prompt become trees to train on."""

    @property
    def identity(self) -> str:
        """Name the rule and its settings."""
        ...

    def select(self, candidates: Candidates, *, seed: int) -> Sequence[TokenTree]:
        """Return the trees of one prompt, possibly none; `seed` is the prompt's own."""
        ...


@runtime_checkable
class Offline(Protocol):
    """Trees that do not depend on the policy."""

    def trees(self, number: int) -> Sequence[TokenTree]:
        """Return the trees of round `number`, counted from 0."""
        ...


@dataclass(frozen=True)
class Sampled:
    """Trees made of what the policy of each round writes."""

    prompts: tuple[Prompt, ...]
    sampling: SamplingConfig
    judge: Judge
    selection: Selection


@dataclass(frozen=True)
class SameTrees:
    """The same trees in every round."""

    every_round: tuple[TokenTree, ...]

    def trees(self, number: int) -> Sequence[TokenTree]:
        """Return all trees."""
        return self.every_round


@runtime_checkable
class Promotion(Protocol):
    """What the next round starts from, given what this one trained."""

    @property
    def identity(self) -> str:
        """Name the rule and its settings."""
        ...

    def promote(self, policy: PeftModel, earlier: Sequence[Path]) -> Mapping[str, float]:
        """Change the trained policy in place; returns measures of the change.

        `earlier` are the adapters that the rounds before trained, oldest first.
        """
        ...


@dataclass(frozen=True)
class KeepTrained:
    """Start the next round from what this one trained."""

    identity: str = "keep"

    def promote(self, policy: PeftModel, earlier: Sequence[Path]) -> Mapping[str, float]:
        """Leave the policy as it is."""
        return {}


@dataclass(frozen=True)
class Ema:
    """A reference that follows: reference = decay * reference + (1 - decay) * policy, per round.

    The mean is over the entries of the adapter's factors, as `mix_adapter` takes it.
    """

    decay: float

    def __post_init__(self) -> None:
        """Raise ConfigError for a decay outside of [0, 1]; 0 is a snapshot, 1 never moves."""
        if not 0 <= self.decay <= 1:
            raise ConfigError(f"ema.decay = {self.decay}: is no share (needs 0 to 1); correct it")


@dataclass(frozen=True)
class Recipe:
    """Say what an iterative method does.

    The reference of a round is the `base`, a `snapshot` of the policy that the round starts from,
    or an exponential mean of the policies so far, which begins at the first one.
    """

    name: str
    n_rounds: int
    source: Offline | Sampled
    objective: ObjectiveConfig
    reference: Literal["base", "snapshot"] | Ema = "snapshot"
    promotion: Promotion = KeepTrained()


@dataclass(frozen=True)
class Evaluation:
    """What to measure on the policy that each round trained; `identity` names the measure."""

    identity: str
    measure: Callable[[nn.Module], Mapping[str, float]]
