import pytest
import torch
from trillium.objectives.batch import PairLogps, SingleLogps
from trillium.objectives.configs import DPOConfig, KTOConfig
from trillium.training.metrics import Meter, average, measure


def test_measures_of_a_pair_are_those_of_the_dpo_paper():
    policy = PairLogps(torch.tensor([-10.0, -20.0]), torch.tensor([-12.0, -18.0]))
    reference = PairLogps(torch.tensor([-11.0, -19.0]), torch.tensor([-11.0, -19.0]))
    found = measure(DPOConfig(beta=0.5), policy, reference, {})
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
    found = measure(KTOConfig(beta=0.1), policy, reference, labels)
    assert found["rewards/chosen"].tolist() == pytest.approx([0.1, -0.1])
    assert found["rewards/rejected"].tolist() == pytest.approx([0.0])


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
