"""What a trainer is given, how that is planned, and what the losses of one optimizer step share."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from trillium.files import hash_json
from trillium.mismatch import pair_mismatched
from trillium.objectives.configs import ObjectiveConfig
from trillium.objectives.table import needs_of
from trillium.policies.adapters import adapter_digest
from trillium.scoring.fingerprint import fingerprint_base
from trillium.scoring.layout import choose_layout
from trillium.scoring.reference import ReferenceProvider
from trillium.training.budget import plan_budget
from trillium.training.config import AlignConfig, Order, TrainConfig
from trillium.training.steps import Sample, StepCollator
from trillium.trees import TokenTree

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepTotals:
    """Hold what the losses of one optimizer step share, counted over all processes.

    `kl` is KTO's reference point z0, there only for objectives that need it.
    """

    n_trees: int
    n_tokens: int
    path_tokens: tuple[int, ...]
    kl: Float[Tensor, ""] | None

    @property
    def tokens_per_path(self) -> tuple[float, ...]:
        """Return the mean number of scored tokens of the first path, the second, and so on."""
        return tuple(count / self.n_trees for count in self.path_tokens)


@dataclass(frozen=True)
class Task:
    """Say what a trainer trains on: samples, objective, reference and how they are batched.

    `identity` names data and configuration; a checkpoint of another identity is never continued.
    `starts_at_reference` claims that policy and reference agree before the first step.
    """

    samples: Sequence[Sample]
    held_out: Sequence[Sample]
    objective: ObjectiveConfig
    reference: ReferenceProvider | None
    collator: StepCollator
    order: Order
    identity: str
    keep_checkpoints: int
    starts_at_reference: bool


def plan_task(
    config: AlignConfig,
    trees: Sequence[TokenTree],
    policy: nn.Module,
    reference: ReferenceProvider | None,
    held_out: Sequence[TokenTree],
    base: str | None,
) -> tuple[Task, TrainConfig]:
    """Choose layout and row batches, and name the run by what it trains on."""
    needs = needs_of(config.objective)
    decision = choose_layout(policy, config.train.layout)
    if decision.sentence is not None:
        log.warning(decision.sentence)
    budget = plan_budget(config.train, policy, trees, decision.layout)
    collator = StepCollator(
        decision.layout,
        _pad_id(policy),
        budget.micro_tokens,
        n_counted=2 + len(needs.paths) if needs.paths else 1,
    )
    task = Task(
        samples=_make_samples(config.objective, trees, config.train.seed),
        held_out=_make_samples(config.objective, held_out, config.train.seed),
        objective=config.objective,
        reference=reference if needs.reference else None,
        collator=collator,
        order=config.train.order,
        identity=_identify(config, [*trees, *held_out], policy, reference, base),
        keep_checkpoints=config.train.keep_checkpoints,
        starts_at_reference=reference is not None and reference.equals(policy),
    )
    return task, config.train.model_copy(update={"gradient_checkpointing": budget.recomputes})


def _make_samples(
    objective: ObjectiveConfig, trees: Sequence[TokenTree], seed: int
) -> list[Sample]:
    if not needs_of(objective).mismatched or not trees:
        return [Sample(tree) for tree in trees]
    longest = max(tree.n_tokens for tree in trees)
    mismatched = pair_mismatched(trees, seed=seed, max_length=longest)
    return [Sample(tree, other) for tree, other in zip(trees, mismatched, strict=True)]


def _identify(
    config: AlignConfig,
    trees: Sequence[TokenTree],
    policy: nn.Module,
    reference: ReferenceProvider | None,
    base: str | None,
) -> str:
    """Name what is trained on what, and how; anything else must not continue its checkpoints."""
    # The name of a reference has that of the base, which is the policy's own.
    if base is None and reference is None:
        base = fingerprint_base(policy)
    return hash_json(
        {
            "config": config.model_dump(mode="json"),
            "trees": [
                [
                    *(tree.path(index).digest for index in range(tree.n_paths)),
                    {name: list(values) for name, values in tree.labels.items()},
                    dict(tree.columns),
                    [list(counts) for counts in tree.steps],
                ]
                for tree in trees
            ],
            "base": base,
            "start": adapter_digest(policy),
            "reference": None if reference is None else reference.identity,
        }
    )


def _pad_id(policy: nn.Module) -> int:
    """Return a token to fill rows with; it is attended by nothing, so any token will do."""
    config = getattr(policy, "config", None)
    pad_id = getattr(config, "pad_token_id", None)
    return pad_id if isinstance(pad_id, int) else 0
