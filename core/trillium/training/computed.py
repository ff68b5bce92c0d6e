"""Arguments of objectives that are made of further paths, single tokens, hidden states and heads.

Each argument that a row of the table calls `computed` has its maker in `MAKERS`, by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from trillium.errors import ShapeError
from trillium.objectives.batch import Needs, PairLogps, PairTokens, SideStream, SingleLogps
from trillium.objectives.configs import ObjectiveConfig
from trillium.objectives.recipe_configs import OREOConfig, SLiCConfig, SparsePOConfig
from trillium.objectives.table import REVISIONS
from trillium.objectives.tokens import mapo_mask
from trillium.scoring.head import precise_dtype
from trillium.scoring.scores import Scores, count_scored, pad_paths, scored_places, sum_paths
from trillium.training.heads import heads_of
from trillium.tree_batch import TreeBatch


@dataclass(frozen=True)
class Passes:
    """Hold what the forward passes over one row batch gave, and where the heads are."""

    objective: ObjectiveConfig
    needs: Needs
    policy: nn.Module
    rows: TreeBatch
    scores: Scores
    reference: Float[Tensor, " path"] | None
    reference_tokens: Float[Tensor, " slot"] | None
    layers: Float[Tensor, "slot layer hidden"] | None
    tokens_per_path: tuple[float, ...]

    @property
    def n_paths(self) -> int:
        """Count the paths of each tree."""
        return self.rows.n_paths // self.rows.n_trees

    def path(self, index: int) -> Float[Tensor, " tree"]:
        """Return the policy's log-probability of one path of each tree."""
        return self.scores.logps[index :: self.n_paths]

    def logratio(self, index: int) -> Float[Tensor, " tree"]:
        """Return the log-ratio of one path of each tree."""
        assert self.reference is not None
        return self.path(index) - self.reference[index :: self.n_paths]

    def further(self, name: str) -> int:
        """Return the place of a further path among those of its tree."""
        return 2 + self.needs.paths.index(name)

    @cached_property
    def common_mask(self) -> PairTokens:
        """Return the mask of both uses, made once: the dropout of another would differ."""
        return _mapo_mask(self) if _settings(self).masks == "mapo" else _learned_mask(self, "mask")


def alternate(
    values: Float[Tensor, " path"], counts: Int[Tensor, " path"] | None = None
) -> PairLogps:
    """Take every other path as chosen, the others as rejected."""
    if counts is None:
        return PairLogps(values[0::2], values[1::2])
    return PairLogps(values[0::2], values[1::2], counts[0::2], counts[1::2])


def _pair_tokens(padded: Float[Tensor, "path token"]) -> PairTokens:
    return PairTokens(padded[0::2], padded[1::2])


def step_counts(rows: TreeBatch) -> Int[Tensor, "path step"]:
    """Return the scored tokens of each step; shorter paths end in steps of none."""
    return nn.utils.rnn.pad_sequence(
        [torch.tensor(counts, device=rows.target.device) for counts in rows.steps],
        batch_first=True,
    )


def _entry_steps(rows: TreeBatch) -> Int[Tensor, " entry"]:
    """Return the place path * n_steps + step of each entry; entries lie in token order."""
    counts = step_counts(rows)
    places = torch.arange(counts.numel(), device=counts.device)
    return places.repeat_interleave(counts.flatten())


def sum_steps(
    passes: Passes, values: Float[Tensor, "slot *axis"]
) -> Float[Tensor, "path step *axis"]:
    """Return the sums of a slot statistic over each step of each path, added up in float64."""
    rows = passes.rows
    size = step_counts(rows).shape
    sums = values.new_zeros(size.numel(), *values.shape[1:], dtype=torch.float64)
    sums = sums.index_add(0, _entry_steps(rows), values[rows.entry_slot].double())
    return sums.reshape(*size, *values.shape[1:]).to(precise_dtype(values.dtype))


def _policy_prompt(passes: Passes) -> PairLogps:
    sums, counts = sum_steps(passes, passes.scores.token["logp"]), step_counts(passes.rows)
    return alternate(sums[:, 0], counts[:, 0])


def _reference_prompt(passes: Passes) -> PairLogps:
    assert passes.reference_tokens is not None
    return alternate(sum_steps(passes, passes.reference_tokens)[:, 0])


def _target(passes: Passes) -> Float[Tensor, " pair"]:
    is_chosen = isinstance(passes.objective, SLiCConfig) and passes.objective.imitate == "chosen"
    return passes.path(0 if is_chosen else passes.further("target"))


def _gold(passes: Passes) -> SingleLogps:
    place = passes.further("gold")
    return SingleLogps(passes.path(place), passes.scores.lengths[place :: passes.n_paths])


def _reference_sample(passes: Passes) -> Float[Tensor, " pair"]:
    """Return the policy's log-probability of the response that the reference wrote."""
    is_chosen = passes.rows.columns["reference_is_chosen"] > 0.5
    return torch.where(is_chosen, passes.path(0), passes.path(1))


def _revised(context: str) -> Callable[[Passes], PairLogps]:
    first = 2 + REVISIONS.index(f"chosen_given_{context}")
    return lambda passes: PairLogps(passes.logratio(first), passes.logratio(first + 1))


def _side_stream(name: str) -> Callable[[Passes], SideStream]:
    def make(passes: Passes) -> SideStream:
        place, every = passes.further(name), passes.n_paths
        divergence = passes.scores.token.get("kl_to_reference")
        kl = None if divergence is None else sum_paths(divergence, passes.rows)[place::every]
        return SideStream(passes.path(place), passes.scores.lengths[place::every], kl)

    return make


def _tokens_per(name: str) -> Callable[[Passes], float]:
    return lambda passes: passes.tokens_per_path[passes.further(name)]


def _kl(passes: Passes) -> PairTokens:
    return _pair_tokens(pad_paths(passes.scores.token["kl_to_reference"], passes.rows))


def _reverse_kl(passes: Passes) -> Float[Tensor, "row token"]:
    return pad_paths(passes.scores.token["reverse_kl"], passes.rows)


def _forward_kl(passes: Passes) -> Float[Tensor, "row token"]:
    return pad_paths(passes.scores.token["kl_to_reference"], passes.rows)


def _mask(use: str) -> Callable[[Passes], PairTokens]:
    def make(passes: Passes) -> PairTokens:
        is_own = _settings(passes).masks == "independent"
        return _learned_mask(passes, use) if is_own else passes.common_mask

    return make


def _learned_mask(passes: Passes, head: str) -> PairTokens:
    layers = _precise_layers(passes)
    is_scored = torch.ones(1, len(layers), dtype=torch.bool, device=layers.device)
    mask = heads_of(passes.policy)[head](layers[None], is_scored)[0]
    return _pair_tokens(pad_paths(mask, passes.rows))


def _mapo_mask(passes: Passes) -> PairTokens:
    # A layer counts by its mean activation, so its width need not be padded.
    activation = _precise_layers(passes).mean(-1, keepdim=True)
    padded = pad_paths(activation, passes.rows)
    return _pair_tokens(mapo_mask(padded, scored_places(passes.rows)))


def _settings(passes: Passes) -> SparsePOConfig:
    assert isinstance(passes.objective, SparsePOConfig)
    return passes.objective


def _precise_layers(passes: Passes) -> Float[Tensor, "slot layer hidden"]:
    assert passes.layers is not None
    return passes.layers.to(precise_dtype(passes.layers.dtype))


def _values(passes: Passes) -> Float[Tensor, "row token"]:
    """Return the value of the state before each token; the value loss moves the head alone."""
    assert passes.scores.hidden is not None
    values = heads_of(passes.policy)["value"](passes.scores.hidden.detach())[:, 0]
    return pad_paths(values, passes.rows)


def _starts(passes: Passes) -> Bool[Tensor, "row token"]:
    """Return where a step begins, or the whole response."""
    rows, objective = passes.rows, passes.objective
    starts = torch.zeros_like(scored_places(rows))
    if isinstance(objective, OREOConfig) and objective.level == "response":
        starts[:, 0] = True
        return starts
    if not rows.steps:
        raise ShapeError(
            f"objective {objective.name}: the trees say nothing of steps (level=step needs the "
            "counts of scored tokens per step); give TokenTree.steps, or set level=token"
        )
    counts = step_counts(rows)
    path, step = counts.nonzero(as_tuple=True)
    starts[path, (counts.cumsum(1) - counts)[path, step]] = True
    return starts


def _degree_logits(passes: Passes) -> Float[Tensor, "pair degree"]:
    """Read the degree off the state that has seen all but the last token of the rejected."""
    assert passes.scores.hidden is not None
    last_entry = count_scored(passes.rows).cumsum(0)[1::2] - 1
    slots = passes.rows.entry_slot[last_entry]
    logits: Tensor = heads_of(passes.policy)["degree_logits"](passes.scores.hidden[slots])
    return logits


def _step_weight(passes: Passes) -> Float[Tensor, "response step"]:
    """Return 1 + cosine similarity to the same step of the best path of its tree, or 1.

    A path longer than the best one is compared with its last step. Weights are constants.
    """
    rows, counts = passes.rows, step_counts(passes.rows)
    is_step = counts > 0
    if passes.scores.hidden is None:
        return is_step.to(passes.scores.logps.dtype)
    hidden = passes.scores.hidden.detach()
    hidden = hidden.to(precise_dtype(hidden.dtype))
    mean = sum_steps(passes, hidden) / counts.clamp(min=1)[..., None]
    label = rows.labels["label"]
    same_tree = rows.path_tree[:, None] == rows.path_tree[None, :]
    best = label.expand(len(label), -1).masked_fill(~same_tree, -torch.inf).argmax(1)
    n_steps = torch.tensor([len(steps) for steps in rows.steps], device=best.device)
    place = torch.arange(counts.shape[1], device=best.device).expand_as(counts)
    place = torch.minimum(place, n_steps[best][:, None] - 1)
    similarity = torch.cosine_similarity(mean, mean[best[:, None], place], dim=-1)
    return torch.where(is_step, 1 + similarity, 0.0).to(passes.scores.logps.dtype)


MAKERS: Mapping[str, Callable[[Passes], object]] = {
    "policy_prompt": _policy_prompt,
    "reference_prompt": _reference_prompt,
    "target": _target,
    "gold": _gold,
    "tokens_per_gold": _tokens_per("gold"),
    "rationale": lambda passes: passes.path(passes.further("rationale")),
    "reference_sample": _reference_sample,
    "given_chosen": _revised("chosen"),
    "given_rejected": _revised("rejected"),
    "near_scope": _side_stream("near_scope"),
    "out_of_scope": _side_stream("out_of_scope"),
    "tokens_per_near": _tokens_per("near_scope"),
    "tokens_per_out": _tokens_per("out_of_scope"),
    "kl": _kl,
    "reverse_kl": _reverse_kl,
    "forward_kl": _forward_kl,
    "mask_u": _mask("mask_u"),
    "mask_d": _mask("mask_d"),
    "values": _values,
    "scored": lambda passes: scored_places(passes.rows),
    "starts": _starts,
    "degree_logits": _degree_logits,
    "step_weight": _step_weight,
}
