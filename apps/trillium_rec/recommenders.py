"""Recommenders made of models: beams over semantic ids, and the fusion of several scorers.

The fused recommender ranks the union of what its scorers would recommend by
    s = log p_codes + a log p_dense + b log p_counts
with a and b chosen on validation items; a scorer that fails alone cannot lose what another found.
"""

from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trillium_rec.baselines import ItemToItem
from trillium_rec.decoding.beam import CodeDecoder, search_items
from trillium_rec.decoding.lazy_decoder import LazyDecoder
from trillium_rec.decoding.onerec_decoder import OneRecDecoder
from trillium_rec.evaluation import Judge
from trillium_rec.metrics import ndcg
from trillium_rec.models.batches import pad
from trillium_rec.models.lazy import LazyRecommender
from trillium_rec.models.onerec import OneRec
from trillium_rec.ranking import NO_ITEM, Lists, Request, best_items
from trillium_rec.splits import Sequences
from trillium_rec.trie import Trie

# Of the probability of the counts, so that items never counted have a finite logarithm.
_COUNT_SMOOTHING = 0.1
# Half-powers of two on both sides of 1; the best weights of real data lie well inside.
_WEIGHTS = (0.0, *(2.0 ** (step / 2) for step in range(-4, 13)))


@dataclass(frozen=True)
class CodeBeams:
    """Recommend by constrained beams over the codes of a generative model."""

    name: str
    model: LazyRecommender | OneRec
    trie: Trie
    width: int = 50
    n_groups: int = 1
    batch_size: int = 256

    def recommend(self, request: Request, k: int) -> Lists:
        """Return the k likeliest items by their codes; beams are at least k."""
        parts = []
        for batch in request.batches(self.batch_size):
            decoder = open_decoder(self.model, batch.histories)
            beams = search_items(
                decoder,
                self.trie,
                batch.is_eligible,
                whole_histories(batch.histories),
                width=max(k, self.width),
                n_groups=self.n_groups,
            )
            parts.append(_cut(Lists(beams.items[:, :, 0], beams.logps), k))
        return Lists.join(parts)


@dataclass(frozen=True)
class Weights:
    """Hold the weights of the dense head and of the counts beside the codes."""

    dense: float
    counts: float


@dataclass(frozen=True)
class Candidates:
    """Hold the union of the scorers' lists per user, -1 as padding, and each scorer's logs."""

    items: Int[Tensor, "user candidate"]
    codes: Float[Tensor, "user candidate"]
    dense: Float[Tensor, "user candidate"]
    counts: Float[Tensor, "user candidate"]

    def rank(self, weights: Weights, k: int) -> Lists:
        """Return the k best candidates under the weights."""
        scores = self._scores(weights)
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
        return Lists(self.items.gather(1, order), scores.gather(1, order))

    def ranks(self, weights: Weights, targets: Int[Tensor, " user"]) -> Int[Tensor, " user"]:
        """Return the place of each target in the list of all candidates, 0 when it is none."""
        scores, is_target = self._scores(weights), self.items == targets[:, None]
        own = scores.masked_fill(~is_target, -torch.inf).amax(dim=1, keepdim=True)
        place = is_target.int().argmax(dim=1, keepdim=True)
        is_earlier = torch.arange(scores.shape[1], device=scores.device) < place
        n_before = ((scores > own) | ((scores == own) & is_earlier)).sum(dim=1)
        return torch.where(is_target.any(dim=1), n_before + 1, 0)

    def _scores(self, weights: Weights) -> Float[Tensor, "user candidate"]:
        scores = self.codes + weights.dense * self.dense + weights.counts * self.counts
        return scores.masked_fill(self.items < 0, -torch.inf)


@dataclass(frozen=True)
class Fused:
    """Recommend by codes, dense head and item-to-item counts together.

    `vectors` are those of all items, for a model that changes no more; without them every batch
    computes its own.
    """

    name: str
    model: LazyRecommender
    trie: Trie
    counts: ItemToItem
    weights: Weights
    width: int = 50
    batch_size: int = 256
    vectors: Float[Tensor, "item hidden"] | None = None

    def recommend(self, request: Request, k: int) -> Lists:
        """Return the k best of the union of the scorers' lists."""
        width = max(k, self.width)
        parts = [
            gather_candidates(self.model, self.trie, self.counts, batch, width, self.vectors).rank(
                self.weights, k
            )
            for batch in request.batches(self.batch_size)
        ]
        return Lists.join(parts)


def fit_weights(
    model: LazyRecommender,
    trie: Trie,
    counts: ItemToItem,
    judge: Judge,
    *,
    width: int = 50,
    batch_size: int = 256,
) -> Weights:
    """Choose the weights with the best NDCG at 10 on what `judge` holds: validation items.

    Among equals the smaller weights win.
    """
    batches = judge.request().batches(batch_size)
    parts = [gather_candidates(model, trie, counts, batch, width) for batch in batches]
    target = torch.from_numpy(judge.judged.target).to(model.device)
    targets = [target[begin : begin + batch_size] for begin in range(0, len(target), batch_size)]
    best, chosen = -1.0, Weights(0.0, 0.0)
    for dense, count in product(_WEIGHTS, _WEIGHTS):
        weights = Weights(dense, count)
        ranks = [part.ranks(weights, own) for part, own in zip(parts, targets, strict=True)]
        found = float(ndcg(torch.cat(ranks).cpu().numpy(), 10).mean())
        if found > best:
            best, chosen = found, weights
    return chosen


@torch.inference_mode()
def gather_candidates(
    model: LazyRecommender,
    trie: Trie,
    counts: ItemToItem,
    request: Request,
    width: int,
    vectors: Float[Tensor, "item hidden"] | None = None,
) -> Candidates:
    """Return what each scorer would recommend, and what every scorer thinks of all of it."""
    histories = request.histories
    reading = model.read(histories, vectors)
    beams = search_items(
        LazyDecoder(model, reading),
        trie,
        request.is_eligible,
        whole_histories(histories),
        width=width,
    )
    dense, counted = model.dense_logps(reading), counts.score_items(histories).to(model.device)
    lists = [beams.items[:, :, 0]]
    lists += [best_items(scores, request, width).items for scores in (dense, counted)]
    items = _without_repeats(torch.cat(lists, dim=1))
    at = items.clamp(min=0)
    share = counted / counted.sum(dim=1, keepdim=True).clamp(min=1e-12)
    smoothed = (1 - _COUNT_SMOOTHING) * share + _COUNT_SMOOTHING / counted.shape[1]
    return Candidates(
        items,
        model.item_logps(reading, items),
        dense.gather(1, at),
        smoothed.log().gather(1, at),
    )


def open_decoder(model: LazyRecommender | OneRec, histories: Sequences) -> CodeDecoder:
    """Return the decoder of a model for these users."""
    with torch.inference_mode():
        if isinstance(model, LazyRecommender):
            return LazyDecoder(model, model.read(histories))
        return OneRecDecoder(model, model.read(histories))


def whole_histories(histories: Sequences) -> Int[Tensor, "user item"]:
    """Return all items of each history, padded with -1: what may not be recommended again."""
    longest = int((histories.starts[1:] - histories.starts[:-1]).max(initial=1))
    return pad(histories, longest)


def _cut(lists: Lists, k: int) -> Lists:
    return Lists(lists.items[:, :k], lists.scores[:, :k])


def _without_repeats(items: Int[Tensor, "user place"]) -> Int[Tensor, "user place"]:
    ordered = items.sort(dim=1, descending=True).values
    repeats = torch.zeros_like(ordered, dtype=torch.bool)
    repeats[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return ordered.masked_fill(repeats, NO_ITEM)
