import pytest
import torch
from trillium.errors import ConfigError
from trillium.training.sampler import Split, StepSampler, plan_epoch

LENGTHS = torch.randint(10, 400, (103,), generator=torch.Generator().manual_seed(0)).tolist()


@pytest.mark.parametrize("order", ["length", "shuffle", "sequential"])
def test_an_epoch_visits_every_tree_once(order):
    batches = plan_epoch(LENGTHS, 8, order=order, seed=3, epoch=1)
    assert sorted(index for batch in batches for index in batch) == list(range(103))
    assert [len(batch) for batch in batches] == [8] * 12 + [7]


def test_the_same_seed_and_epoch_give_the_same_batches():
    plans = [plan_epoch(LENGTHS, 8, order="length", seed=3, epoch=e) for e in (0, 0, 1)]
    other = plan_epoch(LENGTHS, 8, order="length", seed=4, epoch=0)
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]
    assert plans[0] != other


def test_length_order_wastes_less_padding_than_shuffling():
    def padding(order):
        batches = plan_epoch(LENGTHS, 8, order=order, seed=0, epoch=0)
        return sum(
            max(LENGTHS[i] for i in batch) * len(batch) - sum(LENGTHS[i] for i in batch)
            for batch in batches
        )

    assert padding("length") < 0.35 * padding("shuffle")


@pytest.mark.parametrize(
    "split",
    [Split(8, 1), Split(4, 2), Split(2, 4), Split(2, 2, 2, 0), Split(1, 2, 4, 0)],
)
def test_any_split_sees_the_same_optimizer_batches(split):
    plan = plan_epoch(LENGTHS, 8, order="length", seed=5, epoch=2)
    ranks = []
    for rank in range(split.n_processes):
        sampler = StepSampler(
            LENGTHS, Split(split.per_device, split.accumulation, split.n_processes, rank), seed=5
        )
        sampler.set_epoch(2)
        ranks.append(list(sampler))
        assert len(ranks[-1]) == len(sampler)
    for step, batch in enumerate(plan):
        start = step * split.accumulation
        seen = [
            i for lists in ranks for part in lists[start : start + split.accumulation] for i in part
        ]
        assert sorted(seen) == sorted(batch)


def test_a_ragged_last_batch_gives_all_processes_equally_many_lists():
    counts = {len(list(StepSampler(LENGTHS, Split(2, 2, 4, rank)))) for rank in range(4)}
    assert len(counts) == 1


def test_an_empty_data_set_is_refused():
    with pytest.raises(ConfigError, match="no tree"):
        StepSampler([], Split(4))
