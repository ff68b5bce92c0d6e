import torch
from trillium_rec.metrics import ranks_of
from trillium_rec.recommenders import Candidates, Weights


def test_the_place_of_a_target_is_its_place_in_the_ranked_list():
    generator = torch.Generator().manual_seed(0)
    n_users, n_candidates = 200, 12
    items = torch.stack([torch.randperm(30, generator=generator) for _ in range(n_users)])
    items = items[:, :n_candidates]
    items[:, 9:] = items[:, 9:].where(torch.rand(n_users, 3, generator=generator) < 0.5, -1)
    # Few different scores, so that many are equal.
    parts = [
        torch.randint(0, 3, (n_users, n_candidates), generator=generator).float() for _ in range(3)
    ]
    found = Candidates(items, *parts)
    targets = torch.randint(0, 30, (n_users,), generator=generator)
    for weights in (Weights(0.0, 0.0), Weights(1.0, 2.0), Weights(0.25, 8.0)):
        lists = found.rank(weights, n_candidates).items.numpy()
        expected = ranks_of(lists, targets.numpy())
        assert found.ranks(weights, targets).tolist() == expected.tolist()
        assert 0 < (expected == 0).sum() < n_users
