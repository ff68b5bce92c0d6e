import pytest
import torch
from trillium.objectives.batch import ListLogps, PairLogps, PairTokens, SingleLogps
from trillium.objectives.configs import DPOConfig, KTOConfig
from trillium.objectives.recipe_configs import LiPOConfig, PROConfig, TDPOConfig
from trillium.scoring.scores import Scores
from trillium.training.inputs import Inputs
from trillium.training.metrics import Meter, average, measure


def inputs(policy, reference, computed=None, logps=(), fixed=None):
    """Return what `gather` would, with path sums only where a measure reads them."""
    sums = torch.tensor(logps, dtype=torch.float32)
    fixed = None if fixed is None else torch.tensor(fixed)
    return Inputs(
        policy,
        reference,
        Scores(sums, torch.ones_like(sums, dtype=torch.int64), {}),
        fixed,
        computed or {},
    )


def test_measures_of_a_pair_are_those_of_the_dpo_paper():
    policy = PairLogps(torch.tensor([-10.0, -20.0]), torch.tensor([-12.0, -18.0]))
    reference = PairLogps(torch.tensor([-11.0, -19.0]), torch.tensor([-11.0, -19.0]))
    found = measure(DPOConfig(beta=0.5), inputs(policy, reference), {})
    assert found["rewards/chosen"].tolist() == [0.5, -0.5]
    assert found["rewards/rejected"].tolist() == [-0.5, 0.5]
    assert found["rewards/margins"].tolist() == [1.0, -1.0]
    assert found["rewards/accuracies"].tolist() == [1.0, 0.0]
    assert found["margin_nats"].tolist() == [2.0, -2.0]
    assert found["logps/chosen"].tolist() == [-10.0, -20.0]


def test_labelled_rows_are_told_apart_by_their_label():
    policy = SingleLogps(torch.tensor([-1.0, -2.0, -3.0]))
    reference = SingleLogps(torch.tensor([-2.0, -2.0, -2.0]))
    labels = {"label": torch.tensor([1.0, 0.0, 1.0])}
    found = measure(KTOConfig(beta=0.1), inputs(policy, reference), labels)
    assert found["rewards/chosen"].tolist() == pytest.approx([0.1, -0.1])
    assert found["rewards/rejected"].tolist() == pytest.approx([0.0])


def test_tokens_of_a_pair_are_measured_as_sums_with_their_divergence():
    policy = PairTokens(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-4.0, 0.0]]))
    reference = PairTokens(torch.tensor([[-2.0, -2.0]]), torch.tensor([[-3.0, 0.0]]))
    kl = PairTokens(torch.tensor([[0.5, 0.25]]), torch.tensor([[1.0, 0.0]]))
    found = measure(TDPOConfig(beta=0.5), inputs(policy, reference, {"kl": kl}), {})
    assert found["rewards/margins"].tolist() == [1.0]
    assert (found["kl/chosen"].tolist(), found["kl/rejected"].tolist()) == ([0.75], [1.0])


def test_lists_are_measured_by_the_order_of_their_pairs():
    """Of the first list's three pairs one is in order; equal labels have nothing to order."""
    logps = [-1.0, -3.0, -2.0, -1.0, -2.0]
    group = torch.tensor([0, 0, 0, 1, 1])
    label = torch.tensor([0.1, 0.5, 0.9, 0.5, 0.5])
    lists = ListLogps(torch.tensor(logps), group)
    found = measure(
        LiPOConfig(), inputs(lists, lists, logps=logps, fixed=[0.0] * 5), {"label": label}
    )
    assert found["rewards/accuracies"].tolist() == pytest.approx([1 / 3])
    assert found["logps/mean"].tolist() == logps


def test_the_order_of_a_list_is_that_of_the_label_its_objective_reads():
    """PRO reads rewards; labels that the rows also hold say the opposite here."""
    lists = ListLogps(torch.tensor([-1.0, -3.0]), torch.tensor([0, 0]))
    labels = {"label": torch.tensor([0.1, 0.9]), "reward": torch.tensor([2.0, 1.0])}
    found = inputs(lists, None, logps=[-1.0, -3.0])
    assert measure(PROConfig(), found, labels)["rewards/accuracies"].tolist() == [1.0]
    found = inputs(lists, lists, logps=[-1.0, -3.0], fixed=[0.0, 0.0])
    assert measure(LiPOConfig(), found, labels)["rewards/accuracies"].tolist() == [0.0]


def test_an_average_weighs_every_response_the_same_however_it_was_cut():
    one, left, right = Meter(), Meter(), Meter()
    one.add({"loss": torch.tensor([1.0, 2.0, 6.0])})
    left.add({"loss": torch.tensor([1.0])})
    right.add({"loss": torch.tensor([2.0])})
    right.add({"loss": torch.tensor([6.0])})
    whole = average([one.take()])
    assert whole == {"loss": 3.0}
    assert average([left.take(), right.take()]) == whole
    assert average([left.take()]) == {}


def test_a_measure_that_no_response_has_is_left_out():
    meter = Meter()
    meter.add({"rewards/rejected": torch.tensor([]), "loss": torch.tensor([1.0])})
    assert average([meter.take(), {}]) == {"loss": 1.0}
