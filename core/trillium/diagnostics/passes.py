"""The forward passes behind the figures: one row per pair, one per own sample, in order.

Rows are appended as they are computed, so that a killed diagnosis continues; chunks are planned
the same way each time, so that it ends with the same bits.
"""

from collections.abc import Callable, Sequence
from itertools import islice

import torch
from peft import PeftModel

from trillium.diagnostics.ches import ches, normalised_ches
from trillium.diagnostics.samples import draw, score_samples
from trillium.files import RowsFile
from trillium.policies.adapters import using_adapter
from trillium.progress import Progress
from trillium.scoring.layout import evaluating
from trillium.scoring.scores import Scores, score
from trillium.training.steps import StepCollator
from trillium.tree_batch import TreeBatch
from trillium.trees import TokenTree

_CHUNK = 32
_MICRO_TOKENS = 2048


def measure_pairs(
    policy: PeftModel,
    reference: str | None,
    trees: Sequence[TokenTree],
    rows: RowsFile,
    *,
    pad_id: int,
    has_policy: bool,
) -> None:
    """Append one row per pair: log-probabilities under both models, lengths and CHES scores.

    `reference` is the adapter to compute the reference with, None for the bare base. Without
    `has_policy` there is nothing but the reference, the model that training would start from.
    """
    collator = StepCollator("padded", pad_id, _MICRO_TOKENS)
    n_done = sum(str(index) in rows.finished for index in range(len(trees)))
    with Progress("pairs", n_total=len(trees), n_done=n_done, unit="pairs") as progress:
        for start in range(0, len(trees), _CHUNK):
            chunk = trees[start : start + _CHUNK]
            keys = [str(start + place) for place in range(len(chunk))]
            if all(key in rows.finished for key in keys):
                continue
            # Trees are renamed by place: ids of a file may repeat.
            found: dict[str, dict[str, object]] = {}
            named = [_renamed(tree, key) for tree, key in zip(chunk, keys, strict=True)]
            for batch in collator.batch_rows(named):
                found |= _measure(policy, reference, batch, has_policy=has_policy)
            for key, tree in zip(keys, chunk, strict=True):
                if key not in rows.finished:
                    rows.append({"key": key, "id": tree.id, **found[key]})
                    progress.advance(1)


def measure_samples(
    policy: PeftModel,
    reference: str | None,
    prompts: Sequence[tuple[int, ...]],
    rows: RowsFile,
    *,
    max_new_tokens: int,
    seed: int,
    summarise: Callable[[torch.Tensor], dict[str, float]],
) -> None:
    """Append one row per prompt: a greedy reply, and one at temperature 1 under both models."""
    left = iter(range(len(prompts)))
    n_done = sum(str(index) in rows.finished for index in range(len(prompts)))
    with Progress("samples", n_total=len(prompts), n_done=n_done, unit="prompts") as progress:
        while chunk := list(islice(left, 16)):
            if all(str(place) in rows.finished for place in chunk):
                continue
            part = [prompts[place] for place in chunk]
            greedy = draw(policy, part, max_new_tokens=max_new_tokens, seed=None)
            drawn = draw(policy, part, max_new_tokens=max_new_tokens, seed=seed + chunk[0])
            own = score_samples(policy, part, drawn)
            likeliest = score_samples(policy, part, greedy)
            with using_adapter(policy, reference):
                fixed = score_samples(policy, part, drawn)
            for place, sample, other, best in zip(chunk, own, fixed, likeliest, strict=True):
                if str(place) in rows.finished:
                    continue
                row = {"logp": sample.logp, "reference_logp": other.logp}
                greedy_facts = {"greedy_ids": list(best.ids), **summarise(best.top_logps)}
                rows.append({"key": str(place), "ids": list(sample.ids), **row, **greedy_facts})
                progress.advance(1)


def _renamed(tree: TokenTree, name: str) -> TokenTree:
    return TokenTree(name, tree.nodes, tree.leaves)


@torch.no_grad()
def _measure(
    policy: PeftModel, reference: str | None, batch: TreeBatch, *, has_policy: bool
) -> dict[str, dict[str, object]]:
    batch = batch.to(next(policy.parameters()).device)
    with evaluating(policy):
        with using_adapter(policy, reference):
            fixed = score(policy, batch, keep_hidden=True)
        moved = score(policy, batch) if has_policy else None
    n_w, n_l = fixed.lengths[0::2], fixed.lengths[1::2]
    sums = _sum_hidden(fixed, batch)
    columns = {
        "n_chosen": n_w,
        "n_rejected": n_l,
        "reference_chosen": fixed.logps[0::2],
        "reference_rejected": fixed.logps[1::2],
        "ches": ches(sums[0::2], sums[1::2]),
        "ches_per_token": normalised_ches(sums[0::2], sums[1::2], n_w, n_l),
    }
    if moved is not None:
        columns |= {"policy_chosen": moved.logps[0::2], "policy_rejected": moved.logps[1::2]}
    values = {name: column.tolist() for name, column in columns.items()}
    return {
        name: {key: value[place] for key, value in values.items()}
        for place, name in enumerate(batch.tree_ids)
    }


def _sum_hidden(scores: Scores, batch: TreeBatch) -> torch.Tensor:
    """Return, path by path, the sum of the states that predict its scored tokens, in float64."""
    assert scores.hidden is not None
    hidden = scores.hidden.double()
    sums = hidden.new_zeros(batch.n_paths, hidden.shape[1])
    return sums.index_add(0, batch.entry_path, hidden[batch.entry_slot])
