"""One round of a run, as a method sees it: its problems, its policies, and the stages it may use.

A method asks for samples, keeps the trees it makes of them, and trains. Names of stages carry the
round and, where several arms share one run, the arm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from trillium.errors import DataError
from trillium.generation import SamplingConfig
from trillium.objectives.configs import ObjectiveConfig
from trillium.runs import Stage, hash_config
from trillium.training.config import AlignConfig, TrainConfig
from trillium.training.round_rows import read_trees, write_trees
from trillium.trees import TokenTree

from trillium_math.agent.dialogue import Dialogue
from trillium_math.config import MathConfig
from trillium_math.journey import Journey, Rolled
from trillium_math.models import Weights
from trillium_math.problems import Problem
from trillium_math.selection import SelectConfig, Sorted, count_sorted, sort_trajectories
from trillium_math.supervised_config import SupervisedConfig


class NothingToLearnError(DataError):
    """A round gave no tree to learn from."""


class MakeTrees(Protocol):
    """What turns sorted trajectories into trees; see `selection`."""

    __name__: str

    def __call__(
        self, found: Sequence[Sorted], n_pairs: int, *, is_masked: bool, seed: int
    ) -> list[TokenTree]:
        """Return the trees of all problems."""
        ...


@dataclass(frozen=True)
class Gathered:
    """Hold what a method learns from, and what it counted on the way."""

    trees: Sequence[TokenTree]
    counts: Mapping[str, int | float]


@dataclass(frozen=True)
class Round:
    """One round. `policies` are all so far; the round starts from the last and compares with it.

    `arm` is empty, or the name of the arm whose own stages these are.
    """

    journey: Journey
    number: int
    policies: tuple[Weights, ...]
    arm: str = ""

    @property
    def config(self) -> MathConfig:
        """Return the configuration of the run."""
        return self.journey.config

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Return the training problems of this round."""
        return self.journey.problems.of_round(self.number, self.config.n_rounds)

    @property
    def start(self) -> Weights:
        """Return the weights that the round starts from."""
        return self.policies[-1]

    @property
    def folder(self) -> str:
        """Return the folder of the arm's own files inside the run, with its slash."""
        return f"{self.arm}/" if self.arm else ""

    def name(self, stage: str) -> str:
        """Return the name of an own stage: select_0, or select_0_ARM."""
        return f"{stage}_{self.number}" + (f"_{self.arm}" if self.arm else "")

    def stage(self, name: str, inputs: Mapping[str, str]) -> Stage:
        """Begin, continue or skip an own stage of the method; `name` is without the round."""
        return self.journey.stage(self.name(name), {**inputs, "seed": str(self.config.seed)})

    def dialogue(self) -> Dialogue:
        """Return what turns messages into tokens and back."""
        return Dialogue(self.journey.models.tokenizer, self.config.agent)

    def sample(self) -> list[Rolled]:
        """Return the trajectories of `sampling`: the policy's, and its predecessor's share.

        The first round's are the same for all arms, which share them.
        """
        config, number = self.config, self.number
        n_previous = config.n_from_previous if number else 0
        own = config.sampling.model_copy(
            update={"n_samples": config.sampling.n_samples - n_previous}
        )
        if not number:
            return [self.journey.roll_out("sample_0", self.problems, self.start, own)]
        found = [self.roll_out("sample", self.problems, self.start, own)]
        if n_previous:
            other = config.sampling.model_copy(update={"n_samples": n_previous})
            found.append(self.roll_out("previous", self.problems, self.policies[-2], other))
        return found

    def roll_out(
        self, name: str, problems: Sequence[Problem], weights: Weights, sampling: SamplingConfig
    ) -> Rolled:
        """Roll out in a stage of this round; `name` is without the round."""
        return self.journey.roll_out(
            self.name(name), problems, weights, sampling, folder=self.folder
        )

    def select(self, make: MakeTrees, select: SelectConfig, *, is_masked: bool) -> Stage:
        """Sample, and keep the trees that `make` builds of whole trajectories."""
        rolled = self.sample()

        def gather() -> Gathered:
            every = [one for part in rolled for one in part.trajectories]
            groups = sort_trajectories(every, select)
            trees = make(groups, select.n_pairs, is_masked=is_masked, seed=self.config.seed)
            return Gathered(trees, count_sorted(groups))

        inputs = {part.stage.name: part.stage.hash for part in rolled}
        chosen = {"select": hash_config(select), "make": f"{make.__name__}, masked {is_masked}"}
        return self.keep_trees({**inputs, **chosen}, gather)

    def keep_trees(self, inputs: Mapping[str, str], gather: Callable[[], Gathered]) -> Stage:
        """Keep trees in the stage `select`; raises NothingToLearnError for none."""
        stage = self.stage("select", inputs)
        if stage.is_due:
            found = gather()
            if not found.trees:
                said = ", ".join(f"{name} {count}" for name, count in found.counts.items())
                raise NothingToLearnError(
                    f"{stage.name}: nothing to learn from ({said}); sample more with "
                    "sampling.n_samples, choose easier problems, or raise "
                    "warm_up.num_train_epochs"
                )
            output = f"{self.folder}select_{self.number}.jsonl"
            (stage.work / output).parent.mkdir(parents=True, exist_ok=True)
            write_trees(stage.work / output, list(found.trees))
            stage.finish([output], {"trees": len(found.trees), **found.counts})
        return stage

    def read_trees(self, gathered: Stage) -> list[TokenTree]:
        """Read back what `keep_trees` kept."""
        return read_trees(gathered.path(f"{self.folder}select_{self.number}.jsonl"))

    def align(self, objective: ObjectiveConfig, train: TrainConfig, gathered: Stage) -> Weights:
        """Train with an objective on the gathered trees, relative to the start of the round."""
        config = AlignConfig(objective=objective, train=train)
        folder = f"{self.folder}train_{self.number}"
        return self.journey.align(
            self.name("train"),
            folder,
            config,
            gathered,
            lambda: self.read_trees(gathered),
            self.start,
        )

    def imitate(self, config: SupervisedConfig, gathered: Stage) -> Weights:
        """Fine-tune on the first path of each gathered tree."""
        folder = f"{self.folder}train_{self.number}"
        return self.journey.imitate(
            self.name("train"),
            folder,
            config,
            gathered,
            lambda: self.read_trees(gathered),
            self.start,
        )
