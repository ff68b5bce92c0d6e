"""A catalogue that changes under a model that does not: new, hidden and retired items."""

import numpy as np
import pytest
import torch
from trillium_rec.decoding.beam import search_items
from trillium_rec.recommenders import open_decoder, whole_histories
from trillium_rec.residual_kmeans import fit_codes
from trillium_rec.semantic_ids import new_ids
from trillium_rec.splits import pack
from trillium_rec.trie import Trie

HISTORIES = pack([np.array([3, 5]), np.array([8])])


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)


@pytest.fixture
def ids(vectors):
    fitted = fit_codes(vectors, n_levels=3, codebook_size=6)
    return new_ids([str(number) for number in range(30)], fitted)


def recommended(model, ids):
    beams = search_items(
        open_decoder(model, HISTORIES),
        Trie.build(ids),
        torch.from_numpy(ids.is_active),
        whole_histories(HISTORIES),
        width=40,
    )
    return [set(items[items >= 0].tolist()) for items in beams.items[:, :, 0]]


def test_a_new_item_is_recommended_without_training_and_old_ones_keep_their_scores(
    ids, vectors, make_lazy, make_onerec
):
    grown = ids.with_items(["new"], vectors[[7]] + 0.01)
    lazy, onerec = make_lazy(ids, n_content=4), make_onerec(ids)
    before = recommended(lazy, ids)
    every = torch.arange(30).repeat(2, 1)
    kept = lazy.item_logps(lazy.read(HISTORIES), every)
    lazy.set_catalogue(grown, torch.cat([lazy.content, lazy.content[[7]]]))
    assert torch.allclose(lazy.item_logps(lazy.read(HISTORIES), every), kept)
    assert recommended(lazy, grown) == [items | {30} for items in before]
    onerec.set_catalogue(grown)
    assert recommended(onerec, grown) == [items | {30} for items in before]


def test_hidden_and_retired_items_are_not_recommended(ids, make_lazy):
    model = make_lazy(ids)
    everyone = recommended(model, ids)
    changed = ids.with_state(["1", "2"], "hidden").with_state(["4"], "retired")
    assert recommended(model, changed) == [items - {1, 2, 4} for items in everyone]
    back = changed.with_state(["1"], "active")
    assert recommended(model, back) == [items - {2, 4} for items in everyone]
