"""Vectors of items: what they are about, and who takes them together.

Content comes from texts through a sentence encoder, or with the catalogue. Collaboration comes from
the training sequences alone: positive pointwise mutual information of items near one another,
factorised (Levy and Goldberg 2014). An item without events has the collaborative part zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from trillium.errors import DataError
from trillium.progress import Progress

from trillium_rec.splits import Sequences

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Vectors = NDArray[np.float32]
ENCODER = "minilm-l6-v2"
_MOST_TOKENS = 128
_WINDOW = 5


@dataclass(frozen=True)
class VectorSpace:
    """Hold the item vectors and how the content of a new item becomes one of them.

    A vector is [content part ; collaborative part], both of length one or zero.
    """

    vectors: Vectors
    content_mean: Vectors
    content_axes: Vectors

    def place(self, content: Vectors) -> Vectors:
        """Return vectors for items that have content and no events yet."""
        # In float64, where the square of no float32 number is infinite.
        part = _unit((content.astype(np.float64) - self.content_mean) @ self.content_axes.T)
        rest = self.vectors.shape[1] - part.shape[1]
        return np.concatenate([part, np.zeros((len(part), rest), np.float32)], axis=1)


def build_vectors(
    content: Vectors | None, sequences: Sequences | None, *, n_items: int, n_dimensions: int = 64
) -> VectorSpace:
    """Put content and collaboration side by side; raises DataError when there is neither."""
    if content is None and sequences is None:
        raise DataError(
            "ids: items have neither texts nor vectors and collaboration is off (one of them is "
            "needed); give item texts or set ids.collaborative to true"
        )
    parts = []
    mean = axes = np.zeros((0, 0), np.float32)
    if content is not None:
        mean, axes = _principal_axes(content, n_dimensions)
        parts.append(_unit((content - mean) @ axes.T))
    if sequences is not None:
        together = collaborative_vectors(sequences, n_items=n_items, n_dimensions=n_dimensions)
        parts.append(_unit(together))
    return VectorSpace(np.concatenate(parts, axis=1), mean, axes)


def collaborative_vectors(sequences: Sequences, *, n_items: int, n_dimensions: int) -> Vectors:
    """Return U sqrt(S) of the PPMI matrix of items within five places of one another.

    The factors come from subspace iteration with a fixed start (Halko et al., 0909.4061, Alg. 4.4).
    """
    counts = count_neighbours(sequences, n_items=n_items, window=_WINDOW)
    total = counts.sum()
    if total == 0:
        raise DataError("ids: no user has two training events (needed for ids.collaborative)")
    rows = np.asarray(counts.sum(axis=1)).ravel()
    entries = counts.tocoo()
    pmi = np.log(entries.data * total / (rows[entries.row] * rows[entries.col]))
    entries.data = np.maximum(pmi, 0)
    ppmi = entries.tocsr()
    n_factors = min(n_dimensions, n_items)
    width = min(n_factors + 16, n_items)
    basis = np.random.default_rng(0).normal(size=(n_items, width))
    for _ in range(8):
        basis = np.linalg.qr(ppmi @ basis)[0]
    left, values, _ = np.linalg.svd((ppmi @ basis).T @ basis)
    left = (basis @ left)[:, :n_factors]
    signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(n_factors)])
    return np.asarray(left * signs * np.sqrt(values[:n_factors]), np.float32)


def count_neighbours(sequences: Sequences, *, n_items: int, window: int):  # type: ignore[no-untyped-def]
    """Return a sparse symmetric matrix: pairs at distance d <= window count 1/d, both ways."""
    from scipy.sparse import csr_matrix

    owner = np.repeat(np.arange(sequences.n_sequences), np.diff(sequences.starts))
    pairs = []
    for distance in range(1, window + 1):
        same = owner[distance:] == owner[:-distance]
        first, second = sequences.items[:-distance][same], sequences.items[distance:][same]
        pairs.append((first, second, np.full(len(first), 1 / distance)))
    left, right, weight = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    is_pair = left != right
    left, right, weight = left[is_pair], right[is_pair], weight[is_pair]
    counts = csr_matrix((weight, (left, right)), shape=(n_items, n_items))
    return counts + counts.T


def encode_texts(
    texts: Sequence[str], *, batch_size: int = 64, device: "torch.device | str" = "cpu"
) -> Vectors:
    """Return a vector of length one for each text: the mean over its tokens of the encoder's last
    layer, at most 128 tokens. The encoder is the asset `minilm-l6-v2`.
    """
    from trillium.assets import fetch_asset

    return encode_with(fetch_asset(ENCODER), texts, batch_size=batch_size, device=device)


def encode_with(
    folder: Path,
    texts: Sequence[str],
    *,
    batch_size: int = 64,
    device: "torch.device | str" = "cpu",
) -> Vectors:
    """Encode texts with the encoder in `folder`; equal texts get equal vectors in any order."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval().to(device)
    # Texts of like length share a batch, so little is padded.
    order = sorted(range(len(texts)), key=lambda index: (len(texts[index]), texts[index]))
    vectors = np.zeros((len(texts), model.config.hidden_size), np.float32)
    with Progress("encode items", n_total=len(texts)) as progress, torch.inference_mode():
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            batch = tokenizer(
                [texts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=_MOST_TOKENS,
                return_tensors="pt",
            ).to(device)
            hidden: Tensor = model(**batch).last_hidden_state
            mask = batch["attention_mask"][:, :, None].to(hidden.dtype)
            vectors[rows] = ((hidden * mask).sum(dim=1) / mask.sum(dim=1)).cpu().numpy()
            progress.advance(len(rows))
    return _unit(vectors)


def _principal_axes(content: Vectors, n_dimensions: int) -> tuple[Vectors, Vectors]:
    mean = content.mean(axis=0)
    covariance = np.cov((content - mean).T.astype(np.float64))
    values, axes = np.linalg.eigh(np.atleast_2d(covariance))
    order = np.argsort(-values)[: min(n_dimensions, content.shape[1])]
    chosen = axes[:, order].T
    signs = np.sign(chosen[np.arange(len(chosen)), np.abs(chosen).argmax(axis=1)])
    return mean.astype(np.float32), (chosen * signs[:, None]).astype(np.float32)


def _unit(vectors: NDArray[np.floating]) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return np.asarray(unit, np.float32)
