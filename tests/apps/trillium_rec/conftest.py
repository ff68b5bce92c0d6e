import os
from pathlib import Path

import pytest


@pytest.fixture
def shared_rec():
    """Return the path of a shared recommendation data set, or skip."""

    def find(name: str) -> Path:
        path = Path(os.environ.get("TRILLIUM_DATA", "../shared/data")) / "rec" / name
        if not path.exists():
            pytest.skip(f"{path} is not there; set TRILLIUM_DATA to the folder that holds rec/")
        return path

    return find


def random_ids(n_items, sizes, seed=0):
    """Ids with distinct random codes."""
    import numpy as np
    from trillium_rec.semantic_ids import SemanticIds

    random = np.random.default_rng(seed)
    numbers = random.choice(int(np.prod(sizes)), n_items, replace=False)
    codes = np.stack(np.unravel_index(numbers, sizes), axis=1).astype(np.int64)
    items = tuple(str(number) for number in range(n_items))
    return SemanticIds("v", 0, items, codes, tuple(sizes), np.zeros(n_items, np.int64))


def spread_weights(model, seed=0):
    """Random weights of a size that makes log-probabilities differ."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.4)
    return model.eval()


@pytest.fixture
def make_ids():
    """Return the maker of random ids."""
    return random_ids


@pytest.fixture
def make_lazy():
    """Return the maker of small lazy recommenders with random weights."""
    import torch
    from trillium_rec.models.lazy import LazyConfig, LazyRecommender

    def make(ids, *, n_content=0, **options):
        config = LazyConfig(
            sizes=list(ids.sizes),
            n_items=ids.n_items,
            n_warm=ids.n_items,
            n_content=n_content,
            **{"d_model": 16, "d_ff": 24, "max_items": 8, "dropout": 0.1, **options},
        )
        model = LazyRecommender(config)
        model.set_catalogue(ids, torch.randn(ids.n_items, n_content) if n_content else None)
        return spread_weights(model)

    return make


@pytest.fixture
def make_onerec():
    """Return the maker of small OneRec models with random weights."""
    from trillium_rec.models.onerec import OneRec
    from trillium_rec.models.onerec_layers import OneRecConfig

    def make(ids, **options):
        sizes = {"d_model": 16, "d_head": 8, "n_heads": 2, "d_ff": 24, "n_experts": 4}
        layers = {"n_encoder_layers": 2, "n_decoder_layers": 2, "max_items": 6, "n_session": 3}
        model = OneRec(OneRecConfig(sizes=list(ids.sizes), **{**sizes, **layers, **options}))
        model.set_catalogue(ids)
        return spread_weights(model)

    return make


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """Return the folder of a whole run of the preset tiny, one epoch long; leave it as it is."""
    from trillium.config import find_run_file, load_config
    from trillium_rec.config import RecConfig
    from trillium_rec.pipeline import run_rec

    folder = tmp_path_factory.mktemp("rec") / "run"
    overrides = [f"output={folder}", "fit.n_epochs=1", "evaluate.with_sasrec=false"]
    path = find_run_file("tiny", package="trillium_rec")
    run_rec(load_config(RecConfig, path, overrides))
    return folder


@pytest.fixture
def own_run(finished_run, tmp_path):
    """Return a copy of the finished run that a test may change."""
    import shutil

    return Path(shutil.copytree(finished_run, tmp_path / "run"))
