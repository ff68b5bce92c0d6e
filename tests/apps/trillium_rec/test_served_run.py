from dataclasses import replace

import pytest
from trillium.config import load_config
from trillium.errors import DataError
from trillium_rec.config import RecConfig
from trillium_rec.dataset import Catalogue
from trillium_rec.live_catalogue import LiveCatalogue, lock_catalogue, publish
from trillium_rec.new_items import NewItem
from trillium_rec.pipeline import run_rec
from trillium_rec.served_run import ServedRun


def with_log_of(served: ServedRun, items: tuple[str, ...]) -> ServedRun:
    """The same run, whose log names other items now."""
    texts = ("",) * len(items)
    positive = replace(served.data.positive, catalogue=Catalogue(items, items, texts))
    return replace(served, data=replace(served.data, positive=positive))


def grow(served: ServedRun, item: str) -> LiveCatalogue:
    """Publish a revision with one more item."""
    vector = served.data.positive.catalogue.vectors[0]
    live = served.catalogue().with_items([NewItem(item, item, "", vector)])
    with lock_catalogue(served.folder):
        publish(served.folder, live)
    return live


def test_a_log_that_lost_items_since_the_training_is_refused(own_run):
    served = ServedRun.open(own_run)
    items = served.data.positive.catalogue.ids
    shorter = with_log_of(served, items[:-2])
    with pytest.raises(DataError, match="the log has other items now than when the run was"):
        shorter.catalogue()
    grow(served, "new")
    with pytest.raises(DataError, match="give the same log, or run again"):
        shorter.catalogue()


def test_a_log_may_name_an_item_that_the_catalogue_got_since(own_run):
    served = ServedRun.open(own_run)
    items = served.data.positive.catalogue.ids
    longer = with_log_of(served, (*items, "new"))
    with pytest.raises(DataError, match="the log has other items now"):
        longer.catalogue()
    grow(served, "new")
    assert longer.catalogue().ids.items == (*items, "new")
    with pytest.raises(DataError, match="the log has other items now"):
        with_log_of(served, (*items, "other")).catalogue()


def test_a_model_that_was_trained_again_is_not_served_with_the_weights_of_the_old_one(own_run):
    path = own_run / "config.yaml"
    overrides = [f"output={own_run}", "fit.n_epochs=2"]
    run_rec(load_config(RecConfig, path, overrides), until="train")
    served = ServedRun.open(own_run)
    with pytest.raises(DataError, match=r"weights\.json: belongs to another model .* finish"):
        served.recommender(served.catalogue())
    (own_run / "weights.json").unlink()
    with pytest.raises(DataError, match=r"weights\.json: is not there yet"):
        served.recommender(served.catalogue())
