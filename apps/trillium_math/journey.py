"""The stages that every run of the application is made of: warm-up, rollouts, training.

A stage is skipped when its inputs hash to what they were; what a stage returns is read back from
its files. `round.Round` is how a method reaches them.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from trillium.environment import peak_memory_bytes
from trillium.files import hash_json, hash_path
from trillium.generation import SamplingConfig
from trillium.manifest import StageRecord
from trillium.objectives.recipe_configs import OREOConfig
from trillium.policies.load import Policy
from trillium.runs import Run, Stage, hash_config
from trillium.scoring.cache import open_cache
from trillium.scoring.reference import open_reference
from trillium.training.align import AlignResult, align
from trillium.training.config import AlignConfig
from trillium.training.heads import HEADS_FILE
from trillium.trees import TokenTree

from trillium_math.agent.dialogue import Dialogue
from trillium_math.agent.rollout import Roller
from trillium_math.agent.stage import rollout_stage
from trillium_math.agent.tool import PythonTool
from trillium_math.agent.trajectory import Trajectory
from trillium_math.config import MathConfig, WarmUpConfig
from trillium_math.demonstrations import demonstrate
from trillium_math.grading import Grader
from trillium_math.models import Models, Weights
from trillium_math.preparation import RunProblems, hash_problems
from trillium_math.problems import Problem
from trillium_math.records import read_records, write_records
from trillium_math.supervised import fine_tune
from trillium_math.supervised_config import SupervisedConfig
from trillium_math.value.config import SampleSearch, SearchConfig
from trillium_math.value.critic import Critic
from trillium_math.value.stage import Valued, value_stage
from trillium_math.value.work import open_search, rows_per_problem


@dataclass(frozen=True)
class Rolled:
    """Hold trajectories and the stage that they came from."""

    stage: Stage
    trajectories: tuple[Trajectory, ...]


@dataclass(frozen=True)
class Agent:
    """Hold an agent at work: who rolls out, and what it rolls out with."""

    roller: Roller
    dialogue: Dialogue
    tool: PythonTool
    grader: Grader


class Journey:
    """The stages of one run. Arms that share a run have a journey each, and their own models."""

    def __init__(self, config: MathConfig, problems: RunProblems, run: Run) -> None:
        """Belong to an open run; raises ConfigError when the model cannot read that much."""
        self.config = config
        self.problems = problems
        self.run = run
        self.models = Models(config.policy, seed=config.seed, max_rows=config.max_rows)
        self.models.check_length(config.agent.max_tokens)
        self._stages: list[Stage] = []

    def records(self) -> dict[str, StageRecord]:
        """Return what the manifest keeps of every finished stage so far, by name."""
        return {stage.name: stage.record for stage in self._stages if not stage.is_due}

    def stage(self, name: str, inputs: dict[str, str]) -> Stage:
        """Begin, continue or skip a stage."""
        stage = self.run.stage(name, inputs)
        self._stages.append(stage)
        return stage

    def first_policy(self) -> Weights:
        """Return the weights that the rounds start from, warmed up where the run says so."""
        warm_up = self.config.warm_up
        return self._warm_up(warm_up) if warm_up else self.models.start

    def _warm_up(self, config: WarmUpConfig) -> Weights:
        """Write demonstrations, and train a first adapter on them."""
        shown = self._demonstrate()

        def train(policy: Policy, folder: str, stage: Stage) -> dict[str, int | float]:
            paths = [one.path for one in read_records(shown.path(_SHOWN), Trajectory)]
            seed = self.config.seed
            return fine_tune(paths, policy, config, stage.work / folder, seed=seed, title="warm up")

        inputs = {"source": shown.hash, "config": hash_config(config)}
        return self._trained("warm_up", "warm_up", inputs, self.models.start, train)

    def _demonstrate(self) -> Stage:
        agent, problems = self.config.agent, self.problems.warm_up
        inputs = {"problems": hash_problems(problems), "agent": hash_config(agent)}
        stage = self.stage("demonstrate", inputs)
        if stage.is_due:
            with self.agent() as at_work:
                made = demonstrate(
                    problems,
                    at_work.dialogue,
                    at_work.tool,
                    at_work.grader,
                    max_tokens=agent.max_tokens,
                )
            write_records(stage.work / _SHOWN, made.trajectories)
            counts = {"made": len(made.trajectories), "unusable": len(made.unusable)}
            stage.finish([_SHOWN], counts)
        return stage

    def roll_out(
        self,
        name: str,
        problems: Sequence[Problem],
        weights: Weights,
        sampling: SamplingConfig,
        *,
        search: SearchConfig | None = None,
        folder: str = "",
    ) -> Rolled:
        """Let a policy work on problems; before, after and guided share seed and problems."""
        config, how = self.config, search or SampleSearch()
        stage = self.stage(
            name,
            {
                "policy": weights.hash,
                "problems": hash_problems(problems),
                "agent": hash_config(config.agent),
                "sampling": hash_config(sampling),
                "search": hash_config(how),
                "rows": str(config.max_rows),
                "seed": str(config.seed),
            },
        )
        is_judged = name.partition("_")[0] in {"before", "after", "guided"}
        found = rollout_stage(
            stage,
            f"{folder}{name}.jsonl",
            problems,
            lambda: self.models.tokenizer,
            open_search(how, self.models, weights, sampling),
            config.agent,
            policy=weights.hash,
            chunk_size=max(1, config.max_rows // rows_per_problem(how, sampling)),
            seed=config.seed + (0 if is_judged else 1),
        )
        return Rolled(stage, tuple(found))

    def value(self, name: str, rolled: Rolled, weights: Weights) -> list[Valued]:
        """Ask the weights' value function about trajectories; nothing where it has none."""
        folder = weights.folder
        if folder is None or not (folder / HEADS_FILE).is_file():
            return []
        stage = self.stage(name, {"policy": weights.hash, "rolled": rolled.stage.hash})
        return value_stage(
            stage,
            f"{name}.jsonl",
            rolled.trajectories,
            lambda: Critic(self.models.place(weights), folder),
        )

    @contextmanager
    def agent(self, policy: str = "") -> Iterator[Agent]:
        """Open sandbox and grader; `policy` names in trajectories who sampled them."""
        config = self.config.agent
        with ExitStack() as stack:
            backend = stack.enter_context(config.tool.open())
            grader = stack.enter_context(Grader(sources=config.answer_sources))
            dialogue = Dialogue(self.models.tokenizer, config)
            tool = PythonTool(backend, config.tool)
            roller = Roller(dialogue, tool, grader, config, policy=policy)
            yield Agent(roller, dialogue, tool, grader)

    def imitate(
        self,
        name: str,
        folder: str,
        config: SupervisedConfig,
        source: Stage,
        trees: Callable[[], Sequence[TokenTree]],
        start: Weights,
    ) -> Weights:
        """Fine-tune on the first path of each tree."""

        def train(policy: Policy, folder: str, stage: Stage) -> dict[str, int | float]:
            paths = [tree.path(0) for tree in self._apart(trees())]
            seed = self.config.seed
            return fine_tune(paths, policy, config, stage.work / folder, seed=seed, title=name)

        inputs = {"source": source.hash, "config": hash_config(config)}
        return self._trained(name, folder, inputs, start, train)

    def align(
        self,
        name: str,
        folder: str,
        config: AlignConfig,
        source: Stage,
        trees: Callable[[], Sequence[TokenTree]],
        start: Weights,
    ) -> Weights:
        """Train with an objective; the reference is `start`."""

        def train(policy: Policy, folder: str, stage: Stage) -> dict[str, int | float]:
            kind = "snapshot" if start.folder else "base"
            with open_cache() as cache:
                reference = open_reference(kind, policy.model, cache=cache, folder=policy.folder)
                found = self._apart(trees())
                work = stage.work / folder
                heads = start.folder if _has_heads(config, start) else None
                result = align(
                    config, found, policy.model, reference, work, title=name, heads_from=heads
                )
            return _count(result)

        inputs = {"source": source.hash, "config": hash_config(config)}
        journal = (f"{folder}/metrics.jsonl", f"{folder}/timing.jsonl")
        return self._trained(name, folder, inputs, start, train, further=journal)

    def _trained(
        self,
        name: str,
        folder: str,
        inputs: dict[str, str],
        start: Weights,
        train: Callable[[Policy, str, Stage], dict[str, int | float]],
        *,
        further: Sequence[str] = (),
    ) -> Weights:
        """Run a stage that ends in `folder/adapter`, and name that adapter."""
        fixed = {
            "start": start.hash,
            "adapter": hash_config(self.config.policy),
            "seed": str(self.config.seed),
        }
        stage = self.stage(name, {**inputs, **fixed})
        adapter = f"{folder}/adapter"
        if stage.is_due:
            self.models.place(start)
            counts = train(self.models.policy, folder, stage)
            peak = {"peak_memory_bytes": peak_memory_bytes()}
            stage.finish([adapter, *further], {**counts, **peak})
        # PEFT's model card differs from run to run, so an adapter is named by what computes.
        saved = stage.path(adapter)
        files = [saved / file for file in _COMPUTING if (saved / file).is_file()]
        return Weights(hash_json([hash_path(file) for file in files]), saved)

    def _apart(self, trees: Sequence[TokenTree]) -> Sequence[TokenTree]:
        """Stop when a tree comes from a held-out problem: none may ever be trained on."""
        held_out = {problem.id for problem in self.problems.held_out}
        known = held_out | {problem.id for problem in self.problems.train}
        trained = {problem_of(tree.id, known) for tree in trees}
        assert held_out.isdisjoint(trained), "training on held-out problems"
        return trees


def problem_of(tree_id: str, known: Set[str]) -> str:
    """Return the longest known id that a tree's id begins with, up to a "#", or nothing."""
    parts = tree_id.split("#")
    starts = ("#".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
    return next((start for start in starts if start in known), "")


_SHOWN = "demonstrations.jsonl"
_COMPUTING = ("adapter_config.json", "adapter_model.safetensors", HEADS_FILE)


def _has_heads(config: AlignConfig, start: Weights) -> bool:
    """Say whether the round before left a value function to go on with."""
    is_critic = isinstance(config.objective, OREOConfig)
    return is_critic and start.folder is not None and (start.folder / HEADS_FILE).is_file()


def _count(result: AlignResult) -> dict[str, int | float]:
    return {
        "steps": result.n_steps,
        "stopped_early": int(result.stopped_early),
        "tokens": int(sum(row["n_tokens"] for row in result.metrics)),
    }
