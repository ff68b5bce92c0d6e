"""MCTS-DPO and its relatives: search for solutions, and learn from the trees.

The policy searches its own steps (arXiv 2405.00451): PUCT, its own judgement of prefixes beside the
outcome, and preferences between siblings whose labels are smoothed by visit counts. The tree also
serves as lists of siblings, as labelled steps, whole as in tree preference optimisation
(arXiv 2410.12854), or as trajectories for offline reinforcement learning (arXiv 2412.16145).
"""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from trillium.errors import ConfigError
from trillium.objectives.configs import DPOConfig, ObjectiveConfig
from trillium.runs import hash_config
from trillium.training.config import TrainConfig
from trillium.trees import TokenTree

from trillium_math.methods.method import Expected, PreferenceMethod, check_objective
from trillium_math.records import read_records
from trillium_math.search.config import HarvestConfig, SearchConfig
from trillium_math.search.mcts import Search
from trillium_math.search.preferences import HARVESTERS, TreeForm
from trillium_math.search.record import SearchTree
from trillium_math.search.stage import search_stage

if TYPE_CHECKING:
    from trillium.objectives.batch import Shape
    from trillium.runs import Stage

    from trillium_math.journey import Agent
    from trillium_math.round import Round

_SHAPES: "dict[TreeForm, tuple[Shape, str, frozenset[str]]]" = {
    "pairs": ("pair", "dpo", frozenset({"label_smoothing"})),
    "lists": ("list", "lipo", frozenset({"label"})),
    "labels": ("single", "kto", frozenset({"label"})),
    "paths": ("steps", "tree_tpo", frozenset({"label"})),
    "trajectories": ("token", "oreo", frozenset({"reward"})),
}
"""What each form of a tree is for an objective, an objective for it, and its labels."""


class MCTSDPOMethod(PreferenceMethod):
    """Search trees of steps and learn from them."""

    name: Literal["mcts_dpo"] = "mcts_dpo"
    objective: ObjectiveConfig = Field(
        DPOConfig(beta=0.1, smoothing_from="row"), description="what to minimise"
    )
    train: TrainConfig = Field(
        TrainConfig(order="sequential"),
        description="how to minimise it; in sequential order, prefixes of a tree are shared",
    )
    search: SearchConfig = Field(SearchConfig(), description="how trees grow")
    tree_as: TreeForm = Field(
        "pairs", description="pairs | lists | labels | paths | trajectories, of each tree"
    )
    harvest: HarvestConfig = Field(HarvestConfig(), description="which nodes teach")
    max_sampled_tokens: int | None = Field(
        None, gt=0, description="begin nothing more once so many tokens were sampled in all"
    )

    def check(self) -> None:
        """Raise ConfigError when objective or harvest do not fit what the trees become."""
        shape, example, offers = _SHAPES[self.tree_as]
        check_objective(self, shape, example=example, offers=offers)
        gap = self.harvest.min_gap
        if self.tree_as != "pairs" and gap != HarvestConfig().min_gap:
            raise ConfigError(
                f"method.harvest.min_gap={gap:g}: has no meaning with method.tree_as={self.tree_as}"
                " (only pairs have a best and a worst side); leave it out"
            )

    def expect(self, n_problems: int, n_samples: int) -> Expected:
        """Count sampled steps as parts of a trajectory, as if no step came twice."""
        search = self.search
        n_steps = search.n_first + search.n_iterations * search.n_actions * (search.max_depth - 1)
        per_tree = 2 if self.tree_as == "pairs" else search.n_first
        trained = self.trained_paths(n_problems * (search.max_depth - 1 or 1), per_tree)
        return Expected(n_problems * n_steps // search.max_depth, trained)

    def gather(self, round: "Round") -> "Stage":
        """Search every problem, and keep what its tree teaches."""
        from trillium_math.round import Gathered

        output = f"{round.folder}search_{round.number}.jsonl"
        searched = self._search(round, output)

        def gather() -> Gathered:
            end_ids = frozenset(round.journey.models.tokenizer.all_special_ids)
            found = read_records(searched.path(output), SearchTree)
            trees = self._harvest(found, end_ids, seed=round.config.seed)
            counts = searched.record.counts
            return Gathered(trees, {key: counts[key] for key in _SHOWN})

        return round.keep_trees(
            {
                "search": searched.hash,
                "tree_as": self.tree_as,
                "harvest": hash_config(self.harvest),
            },
            gather,
        )

    def _harvest(
        self, found: Sequence[SearchTree], end_ids: frozenset[int], *, seed: int
    ) -> list[TokenTree]:
        """Return the trees of shuffled problems; those of one problem stand together."""
        order = random.Random(f"{seed}/harvest").sample(found, len(found))
        harvester = HARVESTERS[self.tree_as]
        return [tree for one in order for tree in harvester(one, self.harvest, end_ids)]

    def _search(self, round: "Round", output: str) -> "Stage":
        # The module of the run's configuration imports this one.
        from trillium_math.preparation import hash_problems

        config, problems = round.config, round.problems
        stage = round.stage(
            "search",
            {
                "policy": round.start.hash,
                "problems": hash_problems(problems),
                "search": hash_config(self.search),
                "budget": str(self.max_sampled_tokens),
                "agent": hash_config(config.agent),
                "sampling": hash_config(config.sampling),
                "rows": str(config.max_rows),
            },
        )
        if stage.is_due:
            with round.journey.agent(round.start.hash) as agent:
                (stage.work / output).parent.mkdir(parents=True, exist_ok=True)
                search_stage(
                    stage,
                    output,
                    problems,
                    self._open(round, agent),
                    agent.roller,
                    chunk_size=max(1, config.max_rows // self.search.n_first),
                    budget=self.max_sampled_tokens,
                    seed=config.seed,
                )
        return stage

    def _open(self, round: "Round", agent: "Agent") -> Search:
        """Return the search at work, and the policy that judges itself where it is asked to."""
        models, search = round.journey.models, self.search
        generator = models.generator(round.start)
        judge = None
        if search.self_evaluation:
            from trillium.policies.adapters import POLICY_ADAPTER

            from trillium_math.search.self_evaluation import SelfEvaluation

            judge = SelfEvaluation(
                models.policy.model,
                None if round.start.folder is None else POLICY_ADAPTER,
                agent.dialogue,
                shows_answer=search.shows_answer,
            )
        sampling = round.config.sampling
        return Search(agent.roller, agent.dialogue, generator, sampling, judge, search)


_SHOWN = (
    "searched",
    "right_ends",
    "problems_with_both",
    "problems_all_right",
    "problems_all_wrong",
    "environment_faults",
    "over_budget",
)
