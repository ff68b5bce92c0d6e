import json

import numpy as np
import pytest
from trillium.errors import ConfigError, DataError
from trillium_rec.item_vectors import VectorSpace
from trillium_rec.residual_kmeans import Quantised, fit_codes
from trillium_rec.semantic_ids import load_ids, load_space, new_ids, read_index, save_ids

CODEBOOKS = (
    np.array([[0.0], [10.0]], np.float32),
    np.array([[0.0], [1.0]], np.float32),
)


@pytest.fixture
def ids():
    """Three of the four tuples of two levels with two codes are taken."""
    codes = np.array([[0, 0], [0, 1], [1, 0]])
    return new_ids(["a", "b", "c"], Quantised(CODEBOOKS, codes, (0.0, 0.0)))


def test_a_new_item_takes_the_nearest_codes_that_are_free(ids):
    # Nearest are (0, 1), then (0, 0); both are taken, and so is (1, 0).
    grown = ids.with_items(["d"], np.array([[1.0]], np.float32))
    assert grown.codes[3].tolist() == [1, 1]
    assert (grown.version, grown.revision) == (ids.version, 1)
    assert (grown.codes[:3] == ids.codes).all()
    with pytest.raises(ConfigError, match="all 4 tuples of codes are taken"):
        grown.with_items(["e"], np.array([[1.0]], np.float32))


def test_items_added_together_get_different_codes():
    fitted = fit_codes(np.eye(8, dtype=np.float32), n_levels=2, codebook_size=4)
    ids = new_ids([str(number) for number in range(8)], fitted)
    grown = ids.with_items(["x", "y", "z"], np.zeros((3, 8), np.float32))
    assert len(np.unique(grown.codes, axis=0)) == 11


def test_hidden_items_come_back_and_retired_ones_do_not(ids):
    hidden = ids.with_state(["a", "b"], "hidden")
    assert hidden.is_active.tolist() == [False, False, True]
    assert hidden.with_state(["a"], "active").is_active.tolist() == [True, False, True]
    retired = hidden.with_state(["b"], "retired")
    with pytest.raises(ConfigError, match=r"item b: is retired .* again under another id"):
        retired.with_state(["b"], "active")


def test_the_codes_of_a_retired_item_are_never_used_again(ids):
    retired = ids.with_state(["b"], "retired")
    grown = retired.with_items(["d"], np.array([[1.0]], np.float32))
    assert grown.codes[3].tolist() == [1, 1]


def test_ids_that_clash_and_unknown_items_are_refused(ids):
    vector = np.zeros((1, 1), np.float32)
    with pytest.raises(ConfigError, match="item a: is in the catalogue already"):
        ids.with_items(["a"], vector)
    with pytest.raises(ConfigError, match="item d: is in the catalogue already"):
        ids.with_items(["d", "d"], np.zeros((2, 1), np.float32))
    with pytest.raises(ConfigError, match="items q: are not in the catalogue"):
        ids.with_state(["q"], "hidden")


def test_the_version_names_the_content(ids):
    same = new_ids(ids.items, Quantised(CODEBOOKS, ids.codes, (1.0, 2.0)))
    other = new_ids(ids.items, Quantised(CODEBOOKS, ids.codes[::-1].copy(), (0.0, 0.0)))
    assert same.version == ids.version != other.version


def test_saved_ids_are_read_back_whole(ids, tmp_path):
    space = VectorSpace(*(np.full((3, 1), value, np.float32) for value in (1, 2, 3)))
    hidden = ids.with_state(["c"], "hidden")
    save_ids(hidden, space, tmp_path)
    found = load_ids(tmp_path)
    assert (found.version, found.revision, found.items) == (ids.version, 1, ids.items)
    assert found.states.tolist() == [0, 0, 1]
    assert (found.codes == ids.codes).all()
    assert found.codebooks[0].tolist() == [[0.0], [10.0]]
    assert load_space(tmp_path).content_axes.tolist() == [[3.0]] * 3
    record = json.loads((tmp_path / "ids.json").read_text())
    (tmp_path / "ids.json").write_text(json.dumps(record | {"items": ["a"]}))
    with pytest.raises(DataError, match="1 items and 3 rows of codes"):
        load_ids(tmp_path)


def test_an_index_file_gives_codes_and_no_way_to_add_items(tmp_path):
    path = tmp_path / "x.index.json"
    path.write_text('{"0": ["<a_3>", "<b_0>"], "1": ["<a_3>", "<b_2>"], "9": ["<a_0>", "<b_0>"]}')
    ids = read_index(path, ["1", "0"])
    assert ids.codes.tolist() == [[3, 2], [3, 0]]
    assert ids.sizes == (4, 3)
    with pytest.raises(ConfigError, match="came from a file without codebooks"):
        ids.with_items(["n"], np.zeros((1, 2), np.float32))
    with pytest.raises(DataError, match="has no codes for 1 of 2 items, such as 4"):
        read_index(path, ["1", "4"])


def test_a_codebook_may_be_larger_than_a_small_catalogue(tmp_path):
    path = tmp_path / "x.index.json"
    path.write_text('{"0": ["<a_0>", "<b_65535>"], "1": ["<a_1>", "<b_0>"]}')
    assert read_index(path, ["0", "1"]).sizes == (2, 65_536)


def test_colliding_ids_of_a_file_are_refused_with_their_number(shared_rec):
    indexes = shared_rec("Scientific") / "indexes"
    items = [str(number) for number in range(4344)]
    with pytest.raises(DataError, match="4344 items have 3469 different ids; 26 items share"):
        read_index(indexes / "rkmeans_native" / "Scientific.index.json", items)
    ids = read_index(indexes / "rkmeans_zcr_cf" / "Scientific.index.json", items)
    assert ids.sizes == (256, 256, 256, 256)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ('{"a": 5, "b": ["<a_1>"]}', r"item a holds '5' \(needs a list of codes"),
        ('{"a": null, "b": ["<a_1>"]}', "item a holds 'None'"),
        ('{"a": [], "b": []}', r"item a holds '\[\]'"),
        ("5", r"holds 5 \(needs an object of items\)"),
        ("[1]", r"holds \[1\] \(needs an object of items\)"),
        ('{"a": ["<a_²>"], "b": ["<a_1>"]}', r"item a has the code '<a_²>' \(expected <a_171>\)"),
        ('{"a": ["<a_9999999999>"], "b": ["<a_1>"]}', "item a has the code '<a_9999999999>'"),
        (
            '{"a": ["<a_1>", "<b_0>"], "b": ["<a_2>", "<b_65536>"]}',
            r"item b has the code 65536 in place 2 \(codes of 2 items are below 65536\); number",
        ),
        ('{"a": ["<a_944000000>"], "b": ["<a_1>"]}', "item a has the code 944000000 in place 1"),
        ('{"a": ["<a_1>"], "a": ["<a_2>"], "b": ["<a_1>"]}', "has the field 'a' twice"),
        ("[" * 100_000, "is nested too deeply to be read"),
    ],
)
def test_an_index_file_that_holds_no_codes_is_one_sentence(tmp_path, body, sentence):
    path = tmp_path / "x.index.json"
    path.write_text(body, encoding="utf-8")
    with pytest.raises(DataError, match=sentence):
        read_index(path, ["a", "b"])


def test_more_than_ten_codebooks_come_back_in_the_order_of_their_levels(tmp_path):
    books = tuple(np.full((2, 1), level, np.float32) for level in range(12))
    codes = np.repeat([[0], [1]], 12, axis=1)
    save_ids(new_ids(["a", "b"], Quantised(books, codes, (0.0,) * 12)), None, tmp_path)
    assert [float(book[0, 0]) for book in load_ids(tmp_path).codebooks] == list(range(12))


@pytest.mark.parametrize("size", [0, 4, 100])
def test_a_file_that_was_cut_off_is_one_sentence(ids, tmp_path, size):
    save_ids(ids, VectorSpace(*(np.ones((3, 1), np.float32) for _ in range(3))), tmp_path)
    path = tmp_path / "ids.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match="holds no semantic ids"):
        load_ids(tmp_path)
    with pytest.raises(DataError, match="holds no item vectors"):
        load_space(tmp_path)


@pytest.mark.parametrize("record", ["[]", "{}", '{"items": 3, "sizes": [1]}'])
def test_a_record_without_its_parts_is_one_sentence(ids, tmp_path, record):
    save_ids(ids, None, tmp_path)
    (tmp_path / "ids.json").write_text(record)
    with pytest.raises(DataError, match="holds no semantic ids"):
        load_ids(tmp_path)
