import dataclasses

import numpy as np
import pytest
import torch
from trillium.errors import DataError
from trillium_rec.config import LazyModel, OneRecModel, RecConfig
from trillium_rec.modelling import build_model, load_model, load_to_train
from trillium_rec.models.batches import next_item_batches
from trillium_rec.splits import Judged, LeaveOneOut, Sequences

MODELS = (
    LazyModel(d_model=16, d_ff=16),
    OneRecModel(d_model=16, d_head=8, n_heads=2, d_ff=16, n_experts=2, max_items=5),
)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_seed_decides_the_weights_and_nothing_else_does(model, make_ids):
    ids = make_ids(12, (4, 4))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (
        build_model(RecConfig(model=model, seed=seed), ids, None) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.rand(3), expected), "the global generator is left alone"
    name = next(name for name, value in first.named_parameters() if value.ndim > 1)
    weights = [dict(each.named_parameters())[name] for each in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_model_trained_on_other_ids_is_refused(model, make_ids, tmp_path):
    ids, config = make_ids(12, (4, 4)), RecConfig(model=model)
    vectors = np.ones((12, 3), np.float32) if model.name == "lazy" else None
    build_model(config, ids, vectors).save_pretrained(tmp_path)
    assert load_model(config, tmp_path, ids).config.ids_version == ids.version
    with pytest.raises(DataError, match="was trained on semantic ids of version v, these are of"):
        load_model(config, tmp_path, dataclasses.replace(ids, version="w"))


def test_a_saved_model_goes_on_training_without_the_items_that_training_never_shows(
    make_ids, tmp_path
):
    """Items 10 and 11 are cold: the dense loss must not push them down as negatives."""
    ids = make_ids(12, (4, 4))
    config = RecConfig(model=LazyModel(d_model=16, d_ff=16))
    build_model(config, ids, None).save_pretrained(tmp_path)
    train = Sequences(np.arange(10), np.array([0, 5, 10]))
    nobody = Judged(np.zeros(0, np.int64), train, np.zeros(0, np.int64))
    split = LeaveOneOut(train, nobody, nobody, 12, 2)
    model = load_to_train(config, tmp_path, ids, split).eval()
    (batch,) = next_item_batches(train, batch_size=2, max_items=8, seed=0)
    model.losses(batch).total.backward()
    is_moved = (model.own.weight.grad != 0).any(dim=1)
    assert is_moved[:10].all()
    assert not is_moved[10:].any()
