import numpy as np
import pytest
from trillium.assets import ASSETS, cache_folder, is_cached
from trillium.errors import DataError
from trillium_rec.item_vectors import build_vectors, count_neighbours, encode_texts
from trillium_rec.splits import pack

# Two groups of items that never meet, and item 6 that nobody takes.
SEQUENCES = pack(
    [np.array(s) for s in ([0, 1, 2], [1, 2, 0], [3, 4, 5], [5, 3, 4], [2, 0, 1], [4, 5, 3])]
)


def test_neighbours_count_by_their_distance_and_never_across_users():
    counts = count_neighbours(pack([np.array([0, 1, 2]), np.array([3])]), n_items=4, window=2)
    expected = np.zeros((4, 4))
    expected[[0, 1, 1, 2], [1, 0, 2, 1]] = 1
    expected[[0, 2], [2, 0]] = 0.5
    assert (counts.toarray() == expected).all()


def test_items_taken_together_lie_together():
    space = build_vectors(None, SEQUENCES, n_items=7, n_dimensions=6)
    cosine = space.vectors @ space.vectors.T
    assert cosine[:3, :3].min() > 0.1 > abs(cosine[:3, 3:6]).max()
    assert (space.vectors[6] == 0).all()


def test_content_and_collaboration_have_equal_weight_and_new_items_have_content_only():
    content = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    space = build_vectors(content, SEQUENCES, n_items=7, n_dimensions=4)
    assert space.vectors.shape == (7, 8)
    assert np.linalg.norm(space.vectors[0, :4]) == pytest.approx(1)
    assert np.linalg.norm(space.vectors[0, 4:]) == pytest.approx(1)
    placed = space.place(content[:2])
    assert placed[:, :4] == pytest.approx(space.vectors[:2, :4], abs=1e-5)
    assert (placed[:, 4:] == 0).all()


def test_the_same_input_gives_the_same_bits():
    first, again = (build_vectors(None, SEQUENCES, n_items=7, n_dimensions=4) for _ in range(2))
    assert first.vectors.tobytes() == again.vectors.tobytes()


def test_neither_content_nor_collaboration_is_one_sentence():
    with pytest.raises(DataError, match="neither texts nor vectors"):
        build_vectors(None, None, n_items=3)


def test_texts_of_one_meaning_lie_together():
    if not is_cached(ASSETS["minilm-l6-v2"], cache_folder()):
        pytest.skip("the asset minilm-l6-v2 is not in the cache; trillium assets get it")
    texts = ["a cordless power drill", "battery-driven drilling machine", "rose scented soap"]
    vectors = encode_texts(texts)
    cosine = vectors @ vectors.T
    assert cosine[0, 1] > 0.5 > cosine[0, 2]
    assert encode_texts(texts[::-1])[::-1] == pytest.approx(vectors, abs=1e-5)


def test_content_of_any_size_is_placed_by_its_direction():
    content = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    space = build_vectors(content, None, n_items=7, n_dimensions=3)
    direction = np.array([[1, -2, 0.5, 0, 1]], np.float32)
    # The mean of the old content is nothing beside 1e7; the square of 1e30 is infinite in float32.
    small, large = space.place(direction * 1e7), space.place(direction * np.float32(1e30))
    assert small == pytest.approx(large, abs=1e-5)
    assert np.linalg.norm(large) == pytest.approx(1)
