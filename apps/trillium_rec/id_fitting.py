"""Fit semantic ids: vectors of content and of what is taken together, quantised to codes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from trillium.runs import Run, Stage, hash_config

from trillium_rec.config import IdsConfig, RecConfig
from trillium_rec.device import choose_device
from trillium_rec.item_vectors import VectorSpace, build_vectors, encode_texts
from trillium_rec.preparation import RunData
from trillium_rec.residual_kmeans import fit_codes
from trillium_rec.semantic_ids import SemanticIds, new_ids, read_index, save_ids
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


def content_stage(run: Run, config: RecConfig, found: RunData) -> Stage | None:
    """Encode item texts; a catalogue with vectors of its own, or without texts, has no need."""
    catalogue = found.positive.catalogue
    is_needed = config.ids.use_content and config.ids.path is None
    if not is_needed or catalogue.vectors is not None or not any(catalogue.texts):
        return None
    stage = run.stage("content", {"data": found.hash})
    if stage.is_due:
        vectors = encode_texts(catalogue.texts, device=choose_device(config.device))
        save_file({"content": vectors}, stage.work / "content.safetensors")
        stage.finish(["content.safetensors"], {"items": len(vectors)})
    return stage


def ids_stage(run: Run, config: RecConfig, found: RunData, content: Stage | None) -> Stage:
    """Read ready ids, or fit them to the items' vectors or encoded texts and the training part."""
    catalogue = found.positive.catalogue
    inputs = {"ids": hash_config(config.ids), "seed": str(config.seed), "data": found.hash}
    ready = None if config.ids.path is None else read_index(config.ids.path, catalogue.ids)
    if ready is not None:
        inputs["index"] = ready.version
    stage = run.stage("ids", {**inputs, "content": content.hash if content else ""})
    if not stage.is_due:
        return stage
    if ready is not None:
        save_ids(ready, None, stage.work / "ids")
    else:
        vectors = catalogue.vectors
        if content is not None:
            vectors = load_file(content.path("content.safetensors"))["content"]
        fitted = fit_ids(config.ids, catalogue.ids, vectors, found.split.train, seed=config.seed)
        save_ids(fitted.ids, fitted.space, stage.work / "ids")
    stage.finish(["ids"], {"items": catalogue.n_items})
    return stage
