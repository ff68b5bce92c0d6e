import pytest
from trillium.assets import ASSETS, cache_folder, is_cached
from trillium_rec.sources import (
    PositiveRule,
    RecboleSource,
    SequenceSource,
    SimulatorSource,
    TableSource,
    keep_positive,
    load_dataset,
)


def test_scientific_and_beauty_have_the_published_sizes(shared_rec):
    for name, sizes in (("Scientific", (8317, 4344, 58492)), ("Beauty", (22363, 12101, 198502))):
        dataset = load_dataset(SequenceSource(path=shared_rec(name) / f"{name}.inter.json"))
        found = dataset.n_users, dataset.catalogue.n_items, dataset.events.n_events
        assert found == sizes
        assert not any(dataset.counts.values())


def test_item_texts_of_scientific_name_every_item(shared_rec):
    folder = shared_rec("Scientific")
    source = SequenceSource(
        path=folder / "Scientific.inter.json", items=folder / "Scientific.item.json"
    )
    dataset = load_dataset(source)
    assert dataset.counts["items_without_text"] == 0
    relay = dataset.catalogue.ids.index("0")
    assert dataset.catalogue.titles[relay].startswith("SUPCO SPP6")


def test_movielens_comes_from_its_asset_with_titles():
    if not is_cached(ASSETS["movielens-100k"], cache_folder()):
        pytest.skip("the asset movielens-100k is not in the cache; trillium assets get it")
    dataset = load_dataset(RecboleSource())
    sizes = dataset.n_users, dataset.catalogue.n_items, dataset.events.n_events
    assert sizes == (943, 1682, 100_000)
    assert "Toy Story" in dataset.catalogue.titles


def test_a_table_is_read_by_the_names_of_its_columns(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("who,what,when,like\na,x,2,1\na,y,1,0\na,z,3,1\n")
    source = TableSource(path=path, user="who", item="what", timestamp="when", feedback=("like",))
    dataset = load_dataset(source)
    assert dataset.catalogue.ids == ("x", "y", "z")
    assert dataset.events.item.tolist() == [1, 0, 2]
    liked = keep_positive(dataset, (PositiveRule(column="like", at_least=1),))
    assert liked.events.item.tolist() == [0, 2]
    assert liked.counts["events_without_positive_feedback"] == 1


def test_any_of_several_positive_rules_is_enough():
    dataset = load_dataset(SimulatorSource(preset="tiny"))
    one = keep_positive(dataset, (PositiveRule(column="view", at_least=1),))
    rules = (
        PositiveRule(column="view", at_least=1),
        PositiveRule(column="like", at_least=1),
    )
    view, like = (dataset.events.feedback[name] > 0 for name in ("view", "like"))
    assert one.events.n_events == view.sum()
    assert keep_positive(dataset, rules).events.n_events == (view | like).sum()
