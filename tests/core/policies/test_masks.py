import pytest
import torch
from trillium.policies.masks import LearnedMask

SCORED = torch.tensor([[True, True, False], [True, True, True]])


def hidden_states(n_layers: int = 2, width: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, n_layers, width, generator=generator)


def test_an_untrained_mask_is_one_on_every_scored_token() -> None:
    mask = LearnedMask(n_layers=2, width=8)
    assert mask(hidden_states(), SCORED).tolist() == [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]


def test_a_mask_is_the_rectified_sum_of_rectified_layers() -> None:
    """Width 2 normalises (0, 2) to (-1, 1) and (2, 0) to (1, -1).

    Layer 0 scores relu(3 * -1 + 1) = 0 and relu(3 * 1 + 1) = 4, layer 1 scores relu(0.5) = 0.5;
    the mask is relu(2 * layer 0 - 1 * layer 1).
    """
    mask = LearnedMask(n_layers=2, width=2)
    mask.weight.data = torch.tensor([[3.0, 0.0], [0.0, 0.0]])
    mask.bias.data = torch.tensor([1.0, 0.5])
    mask.combine.data = torch.tensor([2.0, -1.0])
    first, second = torch.tensor([0.0, 2.0]), torch.tensor([2.0, 0.0])
    hidden = torch.stack([torch.stack([each, each]) for each in (first, second)])[None]
    values = mask(hidden, torch.ones(1, 2, dtype=torch.bool))[0].tolist()
    assert values == pytest.approx([0.0, 7.5], abs=1e-4)


def test_a_mask_learns_and_the_reference_does_not() -> None:
    mask = LearnedMask(n_layers=2, width=8)
    hidden = hidden_states().requires_grad_()
    mask(hidden, SCORED).square().sum().backward()
    assert hidden.grad is None
    assert all(parameter.grad.any() for parameter in mask.parameters())


def test_what_is_not_scored_teaches_nothing() -> None:
    mask = LearnedMask(n_layers=2, width=8)
    mask(hidden_states(), torch.zeros_like(SCORED)).sum().backward()
    assert not any(parameter.grad.any() for parameter in mask.parameters())


def test_dropout_silences_layers_in_training_only() -> None:
    mask = LearnedMask(n_layers=1, width=8, dropout=0.5)
    hidden = hidden_states(n_layers=1).expand(2, 3, 1, 8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        values = mask(hidden, torch.ones_like(SCORED))
    assert set(values.flatten().tolist()) == {0.0, 2.0}
    assert mask.eval()(hidden, SCORED)[1].tolist() == [1.0, 1.0, 1.0]
