import numpy as np
import pytest
from trillium.errors import ConfigError
from trillium_rec.residual_kmeans import fit_codes, fit_level_by_faiss, make_room, tell_apart


@pytest.fixture(scope="module")
def vectors():
    random = np.random.default_rng(0)
    centres = random.normal(size=(10, 6))
    weights = random.dirichlet(np.full(10, 0.7))
    return (centres[random.choice(10, 331, p=weights)] + 0.3 * random.normal(size=(331, 6))).astype(
        np.float32
    )


@pytest.mark.parametrize("method", ["auction", "greedy"])
def test_levels_above_the_last_are_balanced_and_every_item_has_its_own_codes(vectors, method):
    quantised = fit_codes(vectors, n_levels=3, codebook_size=16, method=method)
    for level in range(2):
        counts = np.bincount(quantised.codes[:, level], minlength=16)
        assert (counts.min(), counts.max()) == (20, 21)
    assert len(np.unique(quantised.codes, axis=0)) == 331
    assert list(quantised.errors) == sorted(quantised.errors, reverse=True)


def test_the_sum_of_the_codebooks_approximates_the_vector_as_the_errors_say(vectors):
    quantised = fit_codes(vectors, n_levels=2, codebook_size=20)
    rebuilt = sum(quantised.codebooks[level][quantised.codes[:, level]] for level in range(2))
    error = np.square(vectors - rebuilt).sum(axis=1).mean()
    assert error == pytest.approx(quantised.errors[1], rel=1e-4)


def test_the_auction_leaves_less_error_than_the_greedy_sweep(vectors):
    auction, greedy = (
        fit_codes(vectors, n_levels=2, codebook_size=20, method=method).errors
        for method in ("auction", "greedy")
    )
    assert auction[0] < 0.9 * greedy[0]


def test_the_same_seed_gives_the_same_codes(vectors):
    first, again = (fit_codes(vectors, n_levels=3, codebook_size=16).codes for _ in range(2))
    assert (first == again).all()


def test_equal_vectors_get_different_codes():
    quantised = fit_codes(np.ones((9, 2), np.float32), n_levels=2, codebook_size=4)
    assert len(np.unique(quantised.codes, axis=0)) == 9


def test_the_last_codes_cost_least_among_those_that_tell_items_apart():
    residual = np.array([[0.0], [0.1], [5.0]])
    codebook = np.array([[0.0], [1.0], [5.0]])
    codes = tell_apart(residual, codebook, np.array([[0], [0], [1]]))
    assert codes.tolist() == [0, 1, 2]


def test_items_move_out_of_a_prefix_that_is_too_full():
    residual = np.array([[0.0], [0.1], [0.2], [3.0]])
    codebook = np.array([[0.0], [3.0]])
    codes = make_room(residual, codebook, np.array([0, 0, 0, 1]), [np.zeros(4, np.int64)])
    assert codes.tolist() == [0, 0, 1, 1]
    with pytest.raises(ConfigError, match="more than 4 items share the first codes"):
        make_room(np.zeros((5, 1)), codebook, np.zeros(5, np.int64), [np.zeros(5, np.int64)])


@pytest.mark.parametrize(
    ("n_items", "sentence"),
    [(3, "ids.codebook_size = 4: there are 3 items"), (17, "tell only 16 apart")],
)
def test_numbers_that_cannot_be_are_refused(n_items, sentence):
    with pytest.raises(ConfigError, match=sentence):
        fit_codes(np.eye(n_items, dtype=np.float32), n_levels=2, codebook_size=4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_faiss_fits_balanced_levels_too(vectors):
    pytest.importorskip("faiss", reason="faiss is not installed; pip install trillium[rec]")
    level = fit_level_by_faiss(np.tile(vectors, (4, 1)).astype(np.float64), 16, seed=0)
    counts = np.bincount(level.codes, minlength=16)
    assert (counts.min(), counts.max()) == (82, 83)
