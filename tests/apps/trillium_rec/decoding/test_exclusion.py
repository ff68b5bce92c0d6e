"""Dead nodes against their definition: every eligible item below was taken."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from trillium_rec.decoding.exclusion import Exclusion
from trillium_rec.trie import Trie


@pytest.fixture
def trie(make_ids):
    return Trie.build(make_ids(30, (3, 4, 5)))


@pytest.mark.parametrize("seed", range(8))
def test_a_node_is_dead_where_every_eligible_item_below_it_was_taken(trie, seed):
    generator = torch.Generator().manual_seed(seed)
    is_eligible = torch.rand(30, generator=generator) < 0.6
    # Items repeat, some are not eligible, and -1 is padding.
    taken = torch.randint(-1, 30, (4, 2, 60), generator=generator)
    excluded = Exclusion.build(trie, is_eligible, taken)
    for depth, nodes in enumerate(trie.ancestors):
        for row, found in zip(taken.flatten(0, 1), excluded.dead[depth].flatten(0, 1), strict=True):
            is_left = is_eligible.clone()
            is_left[row[row >= 0]] = False
            emptied = {*nodes[is_eligible].tolist()} - {*nodes[is_left].tolist()}
            assert {*found.tolist()} - {-1} == emptied


class Largest(TorchDispatchMode):
    """Remember the most numbers that any tensor held."""

    n_numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else [found]:
            if isinstance(each, torch.Tensor):
                self.n_numbers = max(self.n_numbers, each.numel())
        return found


def test_memory_grows_with_the_longest_history_and_not_with_its_square(trie):
    taken = torch.full((4, 1, 500), -1)
    taken[0, 0] = torch.arange(500) % 30
    with Largest() as largest:
        Exclusion.build(trie, torch.ones(30, dtype=torch.bool), taken)
    assert largest.n_numbers == taken.numel()
