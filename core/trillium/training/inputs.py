"""From scores to what objectives take: one place that knows every shape.

`gather` runs the forward passes that `needs_of` implies, and no others, and returns the arguments
of `evaluate`; `computed` has what is made of more than log-probabilities.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from trillium.errors import ShapeError
from trillium.objectives.batch import (
    ListLogps,
    ListSteps,
    Needs,
    PairLogps,
    PairTokens,
    SingleLogps,
)
from trillium.objectives.configs import ObjectiveConfig
from trillium.objectives.evaluate import Logps
from trillium.objectives.recipe_configs import C3POConfig, TreeTPOConfig
from trillium.objectives.table import needs_of
from trillium.scoring.forward import open_model
from trillium.scoring.head import Statistic, token_statistics
from trillium.scoring.reference import ReferenceProvider
from trillium.scoring.scores import Scores, pad_paths, score, sum_paths
from trillium.training.computed import MAKERS, Passes, alternate, step_counts, sum_steps
from trillium.tree_batch import TreeBatch

# These are made of the policy's hidden states, and these of all layers of the reference.
_OF_HIDDEN = frozenset({"values", "degree_logits", "step_weight"})
_OF_LAYERS = frozenset({"mask_u", "mask_d"})
_BY_TOKEN = frozenset({"pair_token", "token", "steps"})


@dataclass(frozen=True)
class Inputs:
    """Hold the arguments of `evaluate`, and the log-probabilities they were made of."""

    policy: Logps
    reference: Logps | None
    scores: Scores
    reference_logps: Float[Tensor, " path"] | None
    computed: Mapping[str, object]


def gather(
    objective: ObjectiveConfig,
    policy: nn.Module,
    reference: ReferenceProvider | None,
    rows: TreeBatch,
    *,
    tokens_per_path: tuple[float, ...],
) -> Inputs:
    """Score one row batch and make of it what the objective takes.

    `tokens_per_path` are the mean counts of scored tokens over the optimizer batch, path by path.
    Raises ShapeError for trees of another shape.
    """
    needs = needs_of(objective)
    _check_paths(rows, needs, objective.name)
    passes = _run(objective, needs, policy, reference, rows, tokens_per_path)
    fixed = None
    if passes.reference is not None:
        fixed = _shape(passes, passes.reference, passes.reference_tokens)
    return Inputs(
        policy=_shape(passes, passes.scores.logps, passes.scores.token["logp"]),
        reference=fixed,
        scores=passes.scores,
        reference_logps=passes.reference,
        computed={name: MAKERS[name](passes) for name in needs.computed},
    )


def _check_paths(rows: TreeBatch, needs: Needs, name: str) -> None:
    """Raise ShapeError when the trees have not the paths, or not the steps, of the shape."""
    per_tree = {"pair": 2, "pair_token": 2, "single": 1, "token": 1}.get(needs.shape)
    if per_tree is not None and rows.n_paths != (per_tree + len(needs.paths)) * rows.n_trees:
        raise ShapeError(
            f"objective {name}: needs {per_tree + len(needs.paths)} paths per tree, the batch has "
            f"{rows.n_paths} paths in {rows.n_trees} trees; use an objective that fits the data"
        )
    if (needs.shape == "steps" or needs.prompts) and not rows.steps:
        raise ShapeError(
            f"objective {name}: the trees say nothing of steps (needs the counts of scored tokens "
            "per step); build them from search rows, or give TokenTree.steps"
        )


def as_pairs(
    rows: TreeBatch,
    logps: Float[Tensor, " path"],
    lengths: Int[Tensor, " path"] | None,
    *,
    n_paths: int = 2,
) -> PairLogps:
    """Take the first path of each tree as chosen, the second as rejected; leave further ones."""
    if rows.n_paths != n_paths * rows.n_trees:
        raise ShapeError(
            f"objective: needs {n_paths} paths per tree (a chosen and a rejected response first), "
            f"the batch has {rows.n_paths} paths in {rows.n_trees} trees; use an objective that "
            "fits the data"
        )
    chosen, rejected = logps[0::n_paths], logps[1::n_paths]
    if lengths is None:
        return PairLogps(chosen, rejected)
    return PairLogps(chosen, rejected, lengths[0::n_paths], lengths[1::n_paths])


def reads_cache(objective: ObjectiveConfig) -> bool:
    """Say whether stored log-probabilities serve; a divergence needs the reference's states."""
    return not (_divergences(objective) or _OF_LAYERS & frozenset(needs_of(objective).computed))


def _divergences(objective: ObjectiveConfig) -> frozenset[Statistic]:
    """Name the divergences between policy and reference that the objective reads."""
    computed, found = needs_of(objective).computed, set[Statistic]()
    of_reference = {"kl", "forward_kl"} & set(computed)
    if of_reference or (isinstance(objective, C3POConfig) and objective.kd_lambda > 0):
        found.add("kl_to_reference")
    if "reverse_kl" in computed:
        found.add("reverse_kl")
    return frozenset(found)


def _run(
    objective: ObjectiveConfig,
    needs: Needs,
    policy: nn.Module,
    reference: ReferenceProvider | None,
    rows: TreeBatch,
    tokens_per_path: tuple[float, ...],
) -> Passes:
    """Run the forward passes: the reference first, because a divergence needs its states."""
    computed = frozenset(needs.computed)
    divergences = _divergences(objective)
    layers = hidden = tokens = sums = None
    if needs.reference and reference is not None:
        if computed & _OF_LAYERS:
            layers = reference.layers(rows)
            hidden = layers[:, -1]
        elif divergences:
            hidden = reference.hidden(rows)
        if hidden is not None:
            # The head is the policy's own, so these are the reference's log-probabilities.
            with torch.no_grad():
                found = token_statistics(open_model(policy).head, hidden, rows.target)
            tokens = found.values["logp"]
        elif needs.shape in _BY_TOKEN or needs.prompts:
            tokens = reference.token_logps(rows)
        sums = reference.logps(rows) if tokens is None else sum_paths(tokens, rows)
    scores = score(
        policy,
        rows,
        statistics=divergences,
        reference_hidden=hidden if divergences else None,
        kl_temperature=objective.temp if isinstance(objective, C3POConfig) else 1.0,
        keep_hidden=bool(computed & _OF_HIDDEN) and _reads_hidden(objective),
    )
    return Passes(objective, needs, policy, rows, scores, sums, tokens, layers, tokens_per_path)


def _reads_hidden(objective: ObjectiveConfig) -> bool:
    return not (isinstance(objective, TreeTPOConfig) and objective.step_weights == "uniform")


def _shape(
    passes: Passes,
    logps: Float[Tensor, " path"],
    tokens: Float[Tensor, " slot"] | None,
) -> Logps:
    """Return one model's log-probabilities in the shape of the objective."""
    rows, needs = passes.rows, passes.needs
    lengths = passes.scores.lengths if needs.lengths else None
    match needs.shape:
        case "pair" if needs.prompts:
            assert tokens is not None
            counts = step_counts(rows)[:, 1:].sum(-1) if needs.lengths else None
            return alternate(sum_steps(passes, tokens)[:, 1:].sum(-1), counts)
        case "pair":
            return as_pairs(rows, logps, lengths, n_paths=2 + len(needs.paths))
        case "single":
            return SingleLogps(logps, lengths)
        case "list":
            return ListLogps(logps, rows.path_tree, lengths)
    assert tokens is not None
    if needs.shape == "steps":
        counts = step_counts(rows)
        return ListSteps(sum_steps(passes, tokens) / counts.clamp(min=1), rows.path_tree)
    padded = pad_paths(tokens, rows)
    return PairTokens(padded[0::2], padded[1::2]) if needs.shape == "pair_token" else padded
