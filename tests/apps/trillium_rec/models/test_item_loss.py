import math

import torch
from torch.nn import functional
from trillium_rec.models.item_loss import item_loss


def draw(n_rows=6, n_items=40, width=5):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(n_rows, width, generator=generator, dtype=torch.float64)
    vectors = torch.randn(n_items, width, generator=generator, dtype=torch.float64)
    return states, vectors, torch.randint(0, n_items, (n_rows,), generator=generator)


def test_without_a_sample_it_is_the_cross_entropy_of_all_items():
    states, vectors, targets = draw()
    expected = functional.cross_entropy(states @ vectors.T, targets)
    for n_negatives in (0, 40, 1000):
        found = item_loss(states, vectors, targets, n_negatives=n_negatives)
        assert torch.allclose(found, expected, atol=1e-12)


def test_the_sampled_sum_has_no_bias():
    """E[n/k sum over drawn j != t of exp s_j] = sum over j != t of exp s_j; exp(loss + s_t) - that
    is exp(s_t) for one row, so the mean over many draws must meet the sum over all items."""
    states, vectors, targets = draw(n_rows=1)
    own = (states[0] @ vectors[targets[0]]).item()
    torch.manual_seed(0)
    sums = [
        math.exp(item_loss(states, vectors, targets, n_negatives=10).item() + own)
        for _ in range(4000)
    ]
    expected = (states @ vectors.T).exp().sum().item()
    spread = torch.tensor(sums).std().item() / math.sqrt(len(sums))
    assert abs(sum(sums) / len(sums) - expected) < 4 * spread
    assert spread < 0.02 * expected


def test_a_target_that_is_drawn_is_no_negative_of_itself():
    """With one state at zero every item scores 0: the loss is log(1 + (n/k) c), c = k or k - 1
    items drawn that are not the target."""
    states = torch.zeros(1, 3, dtype=torch.float64)
    vectors = torch.ones(8, 3, dtype=torch.float64)
    torch.manual_seed(0)
    found = {
        round(item_loss(states, vectors, torch.tensor([2]), n_negatives=4).item(), 9)
        for _ in range(50)
    }
    assert found == {round(math.log(1 + 2 * 4), 9), round(math.log(1 + 2 * 3), 9)}


def test_items_that_are_not_warm_take_no_part():
    states, vectors, _ = draw()
    warm = torch.tensor([1, 4, 5, 20, 39])
    targets = torch.tensor([4, 1, 39, 20, 5, 5])
    expected = functional.cross_entropy(states @ vectors[warm].T, torch.tensor([1, 0, 4, 3, 2, 2]))
    found = item_loss(states, vectors, targets, n_negatives=0, warm=warm)
    assert torch.allclose(found, expected, atol=1e-12)
    vectors.requires_grad_()
    for n_negatives in (0, 3):
        item_loss(states, vectors, targets, n_negatives=n_negatives, warm=warm).backward()
    cold = torch.ones(40, dtype=torch.bool).index_fill(0, warm, False)
    assert (vectors.grad[cold] == 0).all()
    assert (vectors.grad[warm] != 0).any(dim=1).all()
