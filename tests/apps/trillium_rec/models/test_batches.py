import numpy as np
import torch
from trillium_rec.models.batches import last_places, next_item_batches, pad
from trillium_rec.splits import pack

SEQUENCES = pack([np.array(s, np.int64) for s in ([1, 2, 3, 4], [5], [6, 7], [])])


def test_padding_comes_after_the_last_items():
    assert pad(SEQUENCES, 3).tolist() == [[2, 3, 4], [5, -1, -1], [6, 7, -1], [-1, -1, -1]]
    assert last_places(pad(SEQUENCES, 3)).tolist() == [2, 0, 1, 0]


def test_an_epoch_has_every_step_of_every_user_once():
    batches = next_item_batches(SEQUENCES, batch_size=1, max_items=10, seed=0)
    steps = sorted(
        (item, target)
        for batch in batches
        for item, target in zip(
            batch.items[batch.is_target].tolist(),
            batch.targets[batch.is_target].tolist(),
            strict=True,
        )
    )
    assert steps == [(1, 2), (2, 3), (3, 4), (6, 7)]


def test_long_histories_keep_their_newest_steps():
    (batch,) = next_item_batches(pack([np.arange(9)]), batch_size=4, max_items=3, seed=0)
    assert batch.items.tolist() == [[5, 6, 7]]
    assert batch.targets.tolist() == [[6, 7, 8]]


def test_the_seed_decides_the_order():
    many = pack([np.arange(n % 7 + 2) for n in range(50)])
    one, again, other = (
        next_item_batches(many, batch_size=4, max_items=5, seed=seed) for seed in (1, 1, 2)
    )
    assert all(torch.equal(a.items, b.items) for a, b in zip(one, again, strict=True))
    assert any(
        a.items.shape != b.items.shape or not torch.equal(a.items, b.items)
        for a, b in zip(one, other, strict=True)
    )
