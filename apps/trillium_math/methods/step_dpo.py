"""Step-DPO (arXiv 2406.18629): collect errors, locate the first wrong step, mend it, pair steps.

Everything that is learned is the policy's own: the right steps before the error, the wrong step,
and a step in its place that led to the answer. A pair is a tree whose root holds the problem and
the right steps, and whose leaves are one step each, without what ends a turn.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from trillium.objectives.configs import DPOConfig, ObjectiveConfig
from trillium.runs import hash_config
from trillium.trees import TokenTree

from trillium_math.agent.steps import StepUnit, split_steps
from trillium_math.localisation.mistake import Mistake, Toolbox
from trillium_math.localisation.monte_carlo import MonteCarloLocaliser
from trillium_math.localisation.table import LocaliserConfig
from trillium_math.mending import MendPlan, mend_stage
from trillium_math.methods.method import Expected, PreferenceMethod, check_objective
from trillium_math.records import read_records
from trillium_math.rectification import Mended
from trillium_math.selection import SelectConfig, Sorted, sort_trajectories

if TYPE_CHECKING:
    from trillium.runs import Stage

    from trillium_math.agent.dialogue import Dialogue
    from trillium_math.journey import Rolled
    from trillium_math.problems import Problem
    from trillium_math.round import Round


class StepDPOMethod(PreferenceMethod):
    """Pair single steps. The paper's beta is 0.4 or 0.5; its text and its scripts disagree."""

    name: Literal["step_dpo"] = "step_dpo"
    objective: ObjectiveConfig = Field(DPOConfig(beta=0.4), description="what to minimise")
    select: SelectConfig = Field(
        SelectConfig(), description="which trajectories may teach; n_pairs per problem"
    )
    unit: StepUnit = Field("line", description="what a step is: a line of the policy, or its turn")
    n_collected: int = Field(2, gt=0, description="trajectories per problem to find errors in")
    localiser: LocaliserConfig = Field(
        MonteCarloLocaliser(), description="what tells the first wrong step"
    )
    n_rectified: int = Field(20, gt=0, description="continuations of the right steps")
    max_sampled_tokens: int | None = Field(
        None, gt=0, description="begin nothing more once so many tokens were sampled in all"
    )

    def check(self) -> None:
        """Raise ConfigError when the objective takes no pairs."""
        check_objective(self, "pair", example="dpo")

    def expect(self, n_problems: int, n_samples: int) -> Expected:
        """Count as if every other problem had an error, located in the third step."""
        n_rollouts = 3 * self.localiser.n_rollouts if self.localiser.name == "monte_carlo" else 0
        per_problem = self.n_collected + (n_rollouts + self.n_rectified) / 2
        trained = self.trained_paths(n_problems * self.select.n_pairs, 2)
        return Expected(int(n_problems * per_problem), trained)

    def gather(self, round: "Round") -> "Stage":
        """Collect errors, mend them, and keep the pairs."""
        from trillium_math.round import Gathered

        sampling = round.config.sampling.model_copy(update={"n_samples": self.n_collected})
        collected = round.roll_out("collect", round.problems, round.start, sampling)
        output = f"{round.folder}mend_{round.number}.jsonl"
        mended = self._mend(round, collected, output)

        def gather() -> Gathered:
            found = read_records(mended.path(output), Mended)
            trees = self._choose(found)
            counts = mended.record.counts
            return Gathered(trees, {key: counts[key] for key in counts if key in _SHOWN})

        return round.keep_trees({"mend": mended.hash}, gather)

    def _choose(self, found: Sequence[Mended]) -> list[TokenTree]:
        """Return the pairs, the first ones of each problem."""
        groups: dict[str, list[TokenTree]] = {}
        for one in found:
            if one.end == "paired":
                groups.setdefault(one.problem_id, []).append(one.tree)
        return [tree for group in groups.values() for tree in group[: self.select.n_pairs]]

    def _mend(self, round: "Round", collected: "Rolled", output: str) -> "Stage":
        """Locate and rectify; the budget counts the collection too."""
        config = round.config
        spent = int(collected.stage.record.counts["sampled_tokens"])
        stage = round.stage(
            "mend",
            {
                "collected": collected.stage.hash,
                "policy": round.start.hash,
                "method": self.gathering_hash(),
                "agent": hash_config(config.agent),
                "sampling": hash_config(config.sampling),
                "rows": str(config.max_rows),
            },
        )  # fmt: skip
        if stage.is_due:
            groups = sort_trajectories(collected.trajectories, self.select)
            rollouts = getattr(self.localiser, "n_rollouts", 1)
            plan = MendPlan(
                select=self.select,
                unit=self.unit,
                n_samples=self.n_rectified,
                chunk_size=max(1, config.max_rows // max(self.n_rectified, rollouts)),
                budget=None if self.max_sampled_tokens is None
                else max(0, self.max_sampled_tokens - spent),
                seed=config.seed,
            )  # fmt: skip
            with round.journey.agent(round.start.hash) as agent:
                toolbox = Toolbox(
                    agent.roller,
                    agent.dialogue,
                    agent.tool,
                    round.journey.models.generator(round.start),
                    config.sampling,
                )
                mistakes = self._mistakes(groups, round.problems, agent.dialogue)
                localiser = self.localiser.open(toolbox)
                counts = {"collected": len(collected.trajectories), "wrong": len(mistakes),
                          "collected_tokens": spent}  # fmt: skip
                (stage.work / output).parent.mkdir(parents=True, exist_ok=True)
                mend_stage(stage, output, mistakes, localiser, toolbox, plan, counts)
        return stage

    def _mistakes(
        self, groups: Sequence[Sorted], problems: Sequence["Problem"], dialogue: "Dialogue"
    ) -> list[Mistake]:
        """Return wrong trajectories in steps: the first of each problem, then the second ones."""
        known = {problem.id: problem for problem in problems}
        depth = max((len(group.losers) for group in groups), default=0)
        return [
            Mistake(
                one,
                known[one.problem_id],
                tuple(split_steps(one.token_ids, one.spans, dialogue.decode, unit=self.unit)),
            )
            for place in range(depth)
            for group in groups
            for one in group.losers[place : place + 1]
        ]


_SHOWN = ("wrong", "not_located", "no_right_continuation", "same_step", "over_budget")
