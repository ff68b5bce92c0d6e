"""`run_ablation`: the pre-registered experiment, every arm from one seed model, over seeds.

Each seed is a run folder of its own: ids, seed model, reward model, judge, then per arm its rounds
and its measures. A seed of a simulator is another world with other users. Killed and started again
it does only what is missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from trillium.runs import Run, Stage, hash_config

from trillium_rec.alignment.ablation_config import AblationConfig
from trillium_rec.alignment.arm_run import ArmRun
from trillium_rec.alignment.arms import ARMS
from trillium_rec.alignment.gate import check_reward
from trillium_rec.alignment.measures import Measured, Panel, rows_with_a_session
from trillium_rec.alignment.prompts import samples_of
from trillium_rec.alignment.rounds import Materials
from trillium_rec.alignment.stages import TrainedReward, other_form, train_reward
from trillium_rec.alignment.trial import make_trial, oracle_of
from trillium_rec.config import Parts, check_align, check_session, needed_parts
from trillium_rec.device import choose_device
from trillium_rec.fit import write_log
from trillium_rec.id_fitting import content_stage, ids_stage
from trillium_rec.modelling import build_model, load_to_train, train_model
from trillium_rec.reward.examples import RewardExamples, check_log, reward_examples
from trillium_rec.reward.quality import RewardQuality
from trillium_rec.semantic_ids import SemanticIds, load_ids, load_space
from trillium_rec.simulator import Simulation
from trillium_rec.sources import SimulatorSource, keep_positive, load_dataset, simulate_source
from trillium_rec.trie import Trie


@dataclass(frozen=True)
class SeedResult:
    """Hold one seed: the measures of every arm, the quality of both judges, and seconds by arm.

    `n_left_out` users of the panel had taken every item and count nowhere.
    """

    measured: Mapping[str, Measured]
    reward: RewardQuality
    judge: RewardQuality
    seconds: Mapping[str, float]
    rounds: Mapping[str, tuple[Mapping[str, float], ...]]
    n_judged: int
    n_left_out: int = 0


def run_ablation(config: AblationConfig) -> dict[int, SeedResult]:
    """Do what is missing of every seed and return what was found.

    Raises ConfigError when the run has no sessions, reward or align, where an arm has settings that
    no run can honour, or where the reward model is hardly better than popularity and position.
    """
    parts = needed_parts(config.run)
    for name in config.arms:
        check_align(config.run, ARMS[name].configure(parts.align), where=f"arm {name}")
    choose_device(config.run.device)
    return {seed: _SeedRun(config, parts, seed).finish() for seed in config.seeds}


class _SeedRun:
    """One seed, its stages as methods."""

    def __init__(self, config: AblationConfig, parts: Parts, seed: int) -> None:
        self._arms, self._parts, self._seed = config.arms, parts, seed
        self._folder = config.output / f"seed_{seed}"
        self._simulation: Simulation | None = None
        source = config.run.data.source
        if isinstance(source, SimulatorSource):
            source = source.model_copy(update={"seed": source.seed + seed})
            self._simulation = simulate_source(source)
        log = self._simulation.dataset if self._simulation else load_dataset(source)
        check_log(log, parts.sessions, parts.reward.heads)
        check_session(parts.align, log.catalogue.n_items)
        # What the folder is said to be is what it is: its own place, and the world of its seed.
        world = config.run.data.model_copy(update={"source": source})
        changes = {"seed": seed, "output": self._folder, "data": world}
        self._config = config.run.model_copy(update=changes)
        self._positive = keep_positive(log, config.run.data.positive)
        self._trial = make_trial(log, self._positive, parts.sessions, seed=seed)
        self._everything = np.ones(self._trial.found.split.n_items, np.bool_)

    def finish(self) -> SeedResult:
        with Run.open(self._folder, self._config, seed=self._seed) as run:
            given = (run, self._config, self._trial.found)
            fitted = ids_stage(*given, content_stage(*given))
            ids = load_ids(self._folder / "ids")
            train = self._train(run, fitted, ids)
            model = load_to_train(self._config, train.path("model"), ids, self._trial.found.split)
            reward, judge = self._rewards(run)
            check_reward(self._parts.reward, reward.quality)
            panel = self._panel(reward, judge, load_space(self._folder / "ids").vectors)
            trie = Trie.build(ids).to(model.device)
            materials = Materials(
                trie,
                torch.from_numpy(self._everything),
                samples_of(self._config, self._trial.found, self._parts.sessions),
                reward.model,
                {"reward": reward.stage.hash, "ids": ids.version, "data": self._trial.found.hash},
                self._seed,
            )
            arms = ArmRun(run, self._parts.align, train, materials, panel, judge.stage.hash)
            found = {name: arms.finish(name, model) for name in self._arms}
            return SeedResult(
                {name: self._name_users(arm.measured) for name, arm in found.items()},
                reward.quality,
                judge.quality,
                {name: arm.seconds for name, arm in found.items()},
                {name: arm.rounds for name, arm in found.items()},
                len(panel.users),
                panel.n_left_out,
            )

    def _name_users(self, measured: Measured) -> Measured:
        """Name the users of a simulated world by its seed; those of a log are the same in each."""
        if self._simulation is None:
            return measured
        return replace(measured, users=tuple(f"{self._seed}/{user}" for user in measured.users))

    def _train(self, run: Run, fitted: Stage, ids: SemanticIds) -> Stage:
        config, found = self._config, self._trial.found
        inputs = {"model": hash_config(config.model), "fit": hash_config(config.fit)}
        inputs |= {"ids": fitted.hash, "data": found.hash, "seed": str(self._seed)}
        inputs["valid_users"] = str(config.evaluate.n_valid_users)
        stage = run.stage("train", {**inputs, "sessions": hash_config(self._parts.sessions)})
        if stage.is_due:
            model = build_model(config, ids, load_space(self._folder / "ids").vectors)
            judge = found.judge(
                "valid", self._everything, n_users=config.evaluate.n_valid_users, seed=self._seed
            )
            rows = train_model(config, model, found, judge, ids, stage.work / "fit")
            model.save_pretrained(stage.work / "model")
            write_log(rows, stage.work / "metrics.jsonl")
            stage.finish(["model", "metrics.jsonl"], {"epochs": len(rows)})
        return stage

    def _rewards(self, run: Run) -> tuple[TrainedReward, TrainedReward]:
        """Train the reward model on B and the judge on C; A's lists say what both are worth."""
        trial, config = self._trial, self._parts.reward
        of_reward, of_judge, unseen = (
            self._examples(users) for users in (trial.of_reward, trial.of_judge, trial.users)
        )
        vectors = trial.found.positive.catalogue.vectors
        device = choose_device(self._config.device)
        first, second = (
            train_reward(
                run, name, each, lists, unseen, trial.found, vectors, seed=seed, device=device
            )
            for name, each, lists, seed in (
                ("reward", config, of_reward, self._seed),
                ("judge", other_form(config), of_judge, self._seed + 1000),
            )
        )
        return first, second

    def _examples(self, users: tuple[str, ...]) -> RewardExamples:
        return reward_examples(
            self._trial.found.log,
            self._positive,
            self._parts.sessions,
            self._parts.reward.heads,
            n_places=self._parts.reward.n_places,
            deadlines=dict.fromkeys(users, np.inf),
        )

    def _panel(
        self, reward: TrainedReward, judge: TrainedReward, vectors: NDArray[np.float32]
    ) -> Panel:
        trial = self._trial
        rows = rows_with_a_session(trial.histories, self._everything)
        users = tuple(trial.users[row] for row in rows.tolist())
        oracle = oracle_of(self._simulation, users) if self._simulation else None
        return Panel(
            users,
            trial.histories.take(rows),
            trial.targets.take(rows),
            reward.model,
            judge.model,
            oracle,
            trial.found.split.popularity(),
            self._everything,
            vectors,
            n_left_out=len(trial.users) - len(rows),
        )
