import dataclasses

import numpy as np
import pytest
import torch
from trillium.errors import DataError
from trillium_rec.config import LazyModel, OneRecModel, RecConfig
from trillium_rec.modelling import build_model, load_model

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
