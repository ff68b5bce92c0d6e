"""Fit semantic ids: vectors of content and of what is taken together, quantised to codes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trillium_rec.config import IdsConfig
from trillium_rec.item_vectors import VectorSpace, build_vectors
from trillium_rec.residual_kmeans import fit_codes
from trillium_rec.semantic_ids import SemanticIds, new_ids
from trillium_rec.splits import Sequences


@dataclass(frozen=True)
class FittedIds:
    """Hold ids and the space in which they were fitted."""

    ids: SemanticIds
    space: VectorSpace


def fit_ids(
    config: IdsConfig,
    names: tuple[str, ...],
    content: NDArray[np.float32] | None,
    train: Sequences,
    *,
    seed: int,
) -> FittedIds:
    """Return ids for all items of a catalogue, and the vectors they quantise."""
    space = build_vectors(
        content if config.use_content else None,
        train if config.collaborative else None,
        n_items=len(names),
        n_dimensions=config.n_dimensions,
    )
    quantised = fit_codes(
        space.vectors,
        n_levels=config.n_levels,
        codebook_size=config.codebook_size,
        method=config.method,
        seed=seed,
    )
    return FittedIds(new_ids(names, quantised), space)
