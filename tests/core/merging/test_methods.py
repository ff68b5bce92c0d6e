import math

import pytest
import torch
from peft.utils.merge_utils import ties as peft_ties
from trillium.errors import ConfigError, ShapeError
from trillium.merging.methods import dare, linear, slerp, slerp_weights, ties


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.view(torch.int32), b.view(torch.int32))


def test_linear_by_hand() -> None:
    merged = linear([vector(1, 2), vector(3, -4), vector(10, 10)], [0.5, 0.25, 0.1])
    assert torch.allclose(merged, vector(2.25, 1.0))


@pytest.mark.parametrize("end", [0, 1])
def test_a_weight_of_one_gives_the_end_bit_by_bit(end: int) -> None:
    # Minus zero is where 1 * a + 0 * b would not: -0 + 0 is +0.
    ends = [vector(-0.0, 1e-40, 3.3), vector(1.0, -0.0, math.pi)]
    weights = [1.0 - end, float(end)]
    assert same_bits(linear(ends, weights), ends[end])
    assert same_bits(slerp(ends[0], ends[1], float(end)), ends[end])


def test_bfloat16_ends_survive_the_way_through_float32() -> None:
    a, b = draw(64).bfloat16(), draw(64, seed=1).bfloat16()
    assert torch.equal(linear([a, b], [0.0, 1.0]).bfloat16(), b)
    assert linear([a, b], [0.5, 0.5]).dtype == torch.float32


def test_slerp_goes_along_the_arc() -> None:
    a, b = vector(2, 0), vector(0, 2)
    middle = slerp(a, b, 0.5)
    assert torch.allclose(middle, vector(math.sqrt(2), math.sqrt(2)))
    third = slerp(a, b, 1 / 3)
    assert torch.allclose(third, 2 * vector(math.cos(math.pi / 6), math.sin(math.pi / 6)))


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_slerp_keeps_the_length_of_vectors_of_equal_length(t: float) -> None:
    a, b = draw(50), draw(50, seed=1)
    b = b * (a.norm() / b.norm())
    assert float(slerp(a, b, t).norm()) == pytest.approx(float(a.norm()), rel=1e-6)


def test_slerp_takes_the_straight_line_where_there_is_no_arc() -> None:
    assert slerp_weights(1.0, 1.0, 1.0, 0.3) == (0.7, 0.3)
    assert slerp_weights(-1.0, 1.0, 1.0, 0.3) == (0.7, 0.3)
    assert slerp_weights(0.0, 0.0, 1.0, 0.3) == (0.7, 0.3)
    assert torch.allclose(slerp(vector(1, 1), vector(2, 2), 0.5), vector(1.5, 1.5))


def test_ties_by_hand() -> None:
    """Two of four entries stay: (4, 0, -3, 0) and (0, 2, 5, 0).

    Signs of the sums: +, +, +, so -3 is left out; the means of what agrees are 4, 2, 5.
    """
    a, b = vector(4, 1, -3, 0.5), vector(0.5, 2, 5, -1)
    assert ties([a, b], [1.0, 1.0], density=0.5).tolist() == [4, 2, 5, 0]
    # Twice as heavy a first: 2 * -3 + 5 < 0 elects minus.
    assert ties([a, b], [2.0, 1.0], density=0.5).tolist() == [4, 2, -3, 0]
    # What agrees is averaged by weight: (2 * 3 + 1 * 6) / 3.
    found = ties([vector(3), vector(6)], [2.0, 1.0], density=1.0)
    assert found.tolist() == [4]


def test_a_negative_weight_is_that_of_the_update_turned_round() -> None:
    x, y = draw(50, seed=1), draw(50, seed=2)
    turned = ties([-x, -y], [1.0, 1.0], density=0.5)
    assert torch.equal(ties([x, y], [-1.0, -1.0], density=0.5), turned)
    one = ties([x, -y], [1.0, 0.9], density=0.5)
    assert torch.equal(ties([x, y], [1.0, -0.9], density=0.5), one)


@pytest.mark.parametrize("density", [0.2, 0.5, 0.9])
def test_ties_with_weights_of_one_is_that_of_peft(density: float) -> None:
    updates = [draw(20, 30, seed=seed) for seed in range(3)]
    theirs = peft_ties(updates, torch.ones(3), density)
    assert torch.allclose(ties(updates, [1.0, 1.0, 1.0], density=density), theirs, atol=1e-6)


def test_ties_at_the_ends_is_what_is_left_of_the_end() -> None:
    a, b = draw(40), draw(40, seed=1)
    alone = ties([a], [1.0], density=0.3)
    assert torch.equal(ties([a, b], [1.0, 0.0], density=0.3), alone)
    assert int((alone != 0).sum()) == 12


def test_dare_keeps_the_expectation() -> None:
    """The mean of n draws is off by sqrt((1 - p) / (p n)) |x|: here 0.0158, six of them allowed."""
    x, generator = vector(1.0, -2.0, 0.5), torch.Generator().manual_seed(0)
    draws = dare([x.repeat(16_000, 1)], [1.0], density=0.2, generator=generator, elects=False)
    assert torch.all((draws.mean(0) - x).abs() < 6 * 0.0158 * x.abs())
    survivors = draws[:, 1][draws[:, 1] != 0]
    assert torch.all(survivors == -10.0)
    assert len(survivors) / 16_000 == pytest.approx(0.2, abs=0.02)


def test_dare_that_drops_nothing_is_linear_or_ties() -> None:
    updates, weights = [draw(30), draw(30, seed=1)], [0.3, 0.7]
    generator = torch.Generator().manual_seed(0)
    plain = dare(updates, weights, density=1.0, generator=generator, elects=False)
    assert torch.equal(plain, linear(updates, weights))
    elected = dare(updates, weights, density=1.0, generator=generator, elects=True)
    assert torch.equal(elected, ties(updates, weights, density=1.0))


def test_dare_is_the_same_for_the_same_seed() -> None:
    def once(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return dare([draw(50)], [1.0], density=0.5, generator=generator, elects=False)

    assert torch.equal(once(1), once(1))
    assert not torch.equal(once(1), once(2))


def test_inputs_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 tensors and 1 weights"):
        linear([vector(1), vector(2)], [1.0])
    with pytest.raises(ShapeError, match="one shape"):
        linear([vector(1), vector(2, 3)], [1.0, 1.0])
