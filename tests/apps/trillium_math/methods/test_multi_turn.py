import pytest
import torch
from trillium.objectives.batch import SingleLogps
from trillium.objectives.configs import KTOConfig
from trillium.objectives.evaluate import evaluate
from trillium_math.methods.multi_turn import balance


@pytest.mark.parametrize(("n_right", "n_all"), [(100, 812), (4, 8), (70, 90)])
def test_right_and_wrong_count_alike_and_no_weight_falls(n_right: int, n_all: int) -> None:
    found = balance(KTOConfig(w_undesirable=1.0, beta=0.2), n_right=n_right, n_all=n_all)
    assert found.w_desirable * n_right == pytest.approx(found.w_undesirable * (n_all - n_right))
    assert min(found.w_desirable, found.w_undesirable) == 1.0
    assert found.beta == 0.2


@pytest.mark.parametrize("n_right", [0, 5])
def test_one_label_alone_is_left_as_it_is(n_right: int) -> None:
    assert balance(KTOConfig(), n_right=n_right, n_all=5) == KTOConfig()


def test_balanced_the_pull_on_a_common_shift_vanishes_at_the_start() -> None:
    """Seven wrong for one right: what moves all probabilities alike must not go down with them."""
    labels = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0])
    pulls = []
    for objective in (KTOConfig(), balance(KTOConfig(), n_right=1, n_all=8)):
        shift = torch.zeros((), requires_grad=True)
        policy, reference = SingleLogps(shift.expand(8)), SingleLogps(torch.zeros(8))
        losses = evaluate(
            objective,
            policy,
            reference,
            labels={"label": labels},
            columns={},
            kl=torch.zeros(()),
            tokens_per_pair=1.0,
            computed={},
        )
        losses.sum().backward()
        pulls.append(shift.grad.item())
    # A positive gradient: descent lowers every log-probability.
    assert pulls[0] > 0.1
    assert abs(pulls[1]) < 1e-6
