"""Build, train, save and load the model of a run."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from trillium.errors import DataError

from trillium_rec.config import LazyModel, OneRecModel, RecConfig
from trillium_rec.device import choose_device, own_draws, place_on
from trillium_rec.evaluation import Judge
from trillium_rec.fit import Batch, fit
from trillium_rec.models.batches import next_item_batches, session_batches
from trillium_rec.models.lazy import LazyConfig, LazyRecommender
from trillium_rec.models.onerec import OneRec
from trillium_rec.models.onerec_layers import OneRecConfig
from trillium_rec.models.sasrec import SasRec, SasRecConfig
from trillium_rec.preparation import RunData
from trillium_rec.ranking import Recommender, ScoreRecommender
from trillium_rec.recommenders import CodeBeams
from trillium_rec.semantic_ids import SemanticIds
from trillium_rec.session_examples import session_examples
from trillium_rec.sessions import SessionConfig
from trillium_rec.splits import LeaveOneOut, Sequences
from trillium_rec.trie import Trie

Model = LazyRecommender | OneRec
# Beams of a validation during training; fewer than in the evaluation, for speed.
_VALID_WIDTH = 20


def build_model(config: RecConfig, ids: SemanticIds, vectors: NDArray[np.float32] | None) -> Model:
    """Return a model on the run's device, with random weights drawn from its seed in memory."""
    options = config.model.model_dump(exclude={"name"})
    device = choose_device(config.device)
    with own_draws(config.seed, torch.device("cpu")):
        if isinstance(config.model, LazyModel):
            content = None if vectors is None else torch.from_numpy(vectors)
            lazy = LazyRecommender(
                LazyConfig(
                    sizes=list(ids.sizes),
                    n_items=ids.n_items,
                    n_warm=ids.n_items,
                    n_content=0 if content is None else content.shape[1],
                    n_negatives=config.fit.n_negatives,
                    **options,
                )
            )
            lazy.set_catalogue(ids, content)
            return place_on(device, lazy)
        onerec = OneRec(OneRecConfig(sizes=list(ids.sizes), n_items=ids.n_items, **options))
        onerec.set_catalogue(ids)
        return place_on(device, onerec)


def load_model(config: RecConfig, folder: Path, ids: SemanticIds) -> Model:
    """Return the model that a run saved, on the run's device.

    Raises DataError when it was trained on other ids.
    """
    kind = LazyRecommender if isinstance(config.model, LazyModel) else OneRec
    model: Model = kind.from_pretrained(folder)
    if model.config.ids_version != ids.version:
        raise DataError(
            f"{folder}: was trained on semantic ids of version {model.config.ids_version}, these "
            f"are of version {ids.version}; train again, or take the ids of that version"
        )
    return place_on(choose_device(config.device), model)


def load_to_train(config: RecConfig, folder: Path, ids: SemanticIds, split: LeaveOneOut) -> Model:
    """Return the model that a run saved as its training left it, to train it further on `split`."""
    model = load_model(config, folder, ids)
    _mark_warm(model, split)
    return model


def train_model(
    config: RecConfig, model: Model, found: RunData, judge: Judge, ids: SemanticIds, work: Path
) -> list[Mapping[str, float]]:
    """Train in place; the validation is the mean NDCG at 10 of the model's heads.

    OneRec learns good sessions where the run says what a session is, else what follows a cut.
    """
    make_batches = _next_items(config, found.split.train)
    if isinstance(config.model, OneRecModel) and config.sessions is not None:
        make_batches = _sessions(config, config.model.n_session, config.sessions, found)
    trie = Trie.build(ids).to(model.device)
    _mark_warm(model, found.split)
    judges: list[Recommender] = [CodeBeams("codes", model, trie, width=_VALID_WIDTH)]
    if isinstance(model, LazyRecommender):
        judges.append(ScoreRecommender("dense", model))
    return fit(
        model,
        make_batches,
        config.fit,
        work,
        validate=_mean_ndcg(judge, judges),
        seed=config.seed,
        title=f"train {config.model.name}",
    )


def train_sasrec(
    config: RecConfig, train: Sequences, n_items: int, judge: Judge, work: Path, output: Path
) -> list[Mapping[str, float]]:
    """Train the baseline with the same budget and save it to `output`."""
    with own_draws(config.seed, torch.device("cpu")):
        sasrec = SasRec(
            SasRecConfig(
                n_items=n_items,
                max_items=config.model.max_items,
                dropout=config.model.dropout,
                n_negatives=config.fit.n_negatives,
            )
        )
    model = place_on(choose_device(config.device), sasrec)
    rows = fit(
        model,
        _next_items(config, train),
        config.fit,
        work,
        validate=_mean_ndcg(judge, [ScoreRecommender("sasrec", model)]),
        seed=config.seed,
        title="train sasrec",
    )
    model.save_pretrained(output)
    return rows


def load_sasrec(config: RecConfig, folder: Path) -> SasRec:
    """Return the baseline that a run saved, on the run's device."""
    model: SasRec = SasRec.from_pretrained(folder)
    return place_on(choose_device(config.device), model)


def _next_items(config: RecConfig, train: Sequences) -> Callable[[int], Sequence[Batch]]:
    return lambda seed: next_item_batches(
        train, batch_size=config.fit.batch_size, max_items=config.model.max_items, seed=seed
    )


def _sessions(
    config: RecConfig, n_session: int, sessions: SessionConfig, found: RunData
) -> Callable[[int], Sequence[Batch]]:
    examples = session_examples(found.log, found.positive, sessions, n_session=n_session)
    return lambda seed: session_batches(
        examples.histories,
        examples.sessions,
        batch_size=config.fit.batch_size,
        max_items=config.model.max_items,
        seed=seed,
    )


def _mean_ndcg(judge: Judge, recommenders: list[Recommender]) -> Callable[[], float]:
    def validate() -> float:
        found = [judge.evaluate(each, ks=(10,)).metrics["ndcg@10"].mean for each in recommenders]
        return sum(found) / len(found)

    return validate


def _mark_warm(model: Model, split: LeaveOneOut) -> None:
    """Tell a lazy model which items its training shows; what is saved does not say it."""
    if isinstance(model, LazyRecommender):
        warm = np.flatnonzero(split.popularity())
        model.warm = torch.from_numpy(warm).to(model.device)
