import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trillium.errors import ShapeError
from trillium.objectives.batch import ListLogps, PairLogps
from trillium.objectives.listwise import LipoVariant, lipo, pro
from trillium.objectives.pairwise import dpo

VARIANTS: tuple[LipoVariant, ...] = (
    "lambda",
    "lambda_rax",
    "list_mle",
    "pair_logistic",
    "pair_hinge",
    "point_mse",
    "point_sigmoid",
    "softmax",
)
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def lists(*rows: list[float], lens: int = 5) -> ListLogps:
    logps = torch.tensor([value for row in rows for value in row], dtype=torch.float64)
    group = torch.tensor([index for index, row in enumerate(rows) for _ in row])
    return ListLogps(logps, group, torch.full_like(group, lens))


def reference_of(policy: ListLogps) -> ListLogps:
    return ListLogps(torch.full_like(policy.logps, -10.0), policy.group)


@pytest.mark.parametrize("variant", ["pair_logistic", "list_mle"])
def test_a_list_of_two_is_a_dpo_pair(variant: LipoVariant) -> None:
    policy = lists([-9.0, -12.0])
    losses = lipo(policy, reference_of(policy), label=column(1.0, 0.0), variant=variant, beta=0.1)
    expected = dpo(
        PairLogps(column(-9.0), column(-12.0)), PairLogps(column(-10.0), column(-10.0)), beta=0.1
    )
    torch.testing.assert_close(losses, expected, rtol=1e-15, atol=0)


def test_lambda_weights_of_a_list_of_two() -> None:
    """|2^1 - 2^0| * |1/ln 2 - 1/ln 3| * log(1 + exp(-0.3))."""
    policy = lists([-9.0, -12.0])
    loss = lipo(policy, reference_of(policy), label=column(1.0, 0.0), beta=0.1)
    weight = 1 / math.log(2) - 1 / math.log(3)
    assert loss.item() == pytest.approx(weight * math.log1p(math.exp(-0.3)), rel=1e-14)


def test_equal_labels_make_no_pair() -> None:
    policy = lists([-9.0, -12.0, -8.0])
    label = column(0.5, 0.5, 0.5)
    assert lipo(policy, reference_of(policy), label=label, variant="pair_hinge").item() == 0.0
    assert lipo(policy, reference_of(policy), label=label, variant="lambda_rax").item() == 0.0


def test_plackett_luce_of_equal_scores_is_the_number_of_orders() -> None:
    policy = lists([-10.0, -10.0, -10.0, -10.0])
    loss = lipo(policy, policy, label=column(0.4, 0.3, 0.2, 0.1), variant="list_mle")
    assert loss.item() == pytest.approx(math.log(24))


@every_variant
@given(seed=st.integers(min_value=0, max_value=10_000))
@settings(deadline=None, max_examples=25)
def test_lists_of_any_length_do_not_see_each_other(variant: LipoVariant, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = [2, 5, 3]
    rows = [(-20 * torch.rand(size, generator=generator)).tolist() for size in sizes]
    labels = [torch.rand(size, generator=generator, dtype=torch.float64) for size in sizes]
    together = lists(*rows)
    losses = lipo(together, reference_of(together), label=torch.cat(labels), variant=variant)
    for row, label, loss in zip(rows, labels, losses, strict=True):
        alone = lists(row)
        expected = lipo(alone, reference_of(alone), label=label, variant=variant)
        torch.testing.assert_close(loss, expected[0], rtol=1e-12, atol=1e-12)


@every_variant
@given(seed=st.integers(min_value=0, max_value=10_000))
@settings(deadline=None, max_examples=25)
def test_shuffling_a_list_does_not_change_its_loss(variant: LipoVariant, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    policy = lists((-20 * torch.rand(6, generator=generator)).tolist())
    label = torch.rand(6, generator=generator, dtype=torch.float64)
    order = torch.randperm(6, generator=generator)
    shuffled = ListLogps(policy.logps[order], policy.group)
    losses = [
        lipo(each, reference_of(each), label=each_label, variant=variant)
        for each, each_label in ((policy, label), (shuffled, label[order]))
    ]
    torch.testing.assert_close(*losses, rtol=1e-12, atol=1e-12)


@every_variant
def test_the_gradient_is_that_of_finite_differences(variant: LipoVariant) -> None:
    policy = lists([-9.0, -12.0, -8.5], [-30.0, -31.5])
    label = column(0.9, 0.1, 0.5, 0.2, 0.7)

    def losses(logps: torch.Tensor) -> torch.Tensor:
        moved = ListLogps(logps, policy.group)
        return lipo(moved, reference_of(policy), label=label, variant=variant, beta=0.3)

    assert torch.autograd.gradcheck(losses, (policy.logps.requires_grad_(),))


@every_variant
@pytest.mark.parametrize("distance", [200.0, 10_000.0])
def test_losses_and_gradients_are_finite_in_float32(variant: LipoVariant, distance: float) -> None:
    logps = torch.tensor([-1.0, -1.0 - distance, -1.0 - distance / 2], requires_grad=True)
    group = torch.zeros(3, dtype=torch.int64)
    reference = ListLogps(torch.full((3,), -1.0 - distance / 2), group)
    label = torch.tensor([0.0, 1.0, 0.5])
    loss = lipo(ListLogps(logps, group), reference, label=label, variant=variant, beta=1.0)
    (gradient,) = torch.autograd.grad(loss.sum(), logps)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


def test_a_step_downhill_raises_the_best_and_lowers_the_worst() -> None:
    policy = lists([-10.0, -10.0, -10.0])
    policy.logps.requires_grad_()
    for variant in VARIANTS:
        losses = lipo(policy, reference_of(policy), label=column(1.0, 0.5, 0.0), variant=variant)
        (gradient,) = torch.autograd.grad(losses.sum(), policy.logps)
        assert gradient[0] < gradient[1] <= gradient[2], variant


def test_pro_of_two_is_a_logistic_loss_at_the_temperature_of_the_gap() -> None:
    """d = 3 for both: log(1 + exp(3 * (s_2 - s_1))) with means -2 and -1; likelihood 0.05 * 10."""
    losses = pro(lists([-10.0, -5.0]), reward=column(2.0, -1.0))
    assert losses.item() == pytest.approx(math.log1p(math.exp(3.0)) + 0.05 * 10)


def test_pro_of_equal_rewards_has_no_gradient_but_the_likelihood() -> None:
    policy = lists([-10.0, -5.0])
    policy.logps.requires_grad_()
    losses = pro(policy, reward=column(1.0, 1.0), sft_weight=0.05)
    (gradient,) = torch.autograd.grad(losses.sum(), policy.logps)
    assert gradient.tolist() == pytest.approx([-0.05, 0.0])


def test_the_released_epsilon_silences_far_negatives() -> None:
    """exp(-30) is far below 1e-10, so the released form hardly sees the better-scored negative."""
    policy = lists([-200.0, -150.0])
    policy.logps.requires_grad_()
    gradients = []
    for eps in (0.0, 1e-10):
        losses = pro(policy, reward=column(1.0, 0.0), sft_weight=0.0, eps=eps)
        gradients.append(torch.autograd.grad(losses.sum(), policy.logps)[0][1].item())
    assert gradients[0] == pytest.approx(0.2, rel=1e-3)
    assert gradients[1] < 1e-3


def test_pro_without_counts_is_refused() -> None:
    bare = ListLogps(column(-1.0, -2.0), torch.tensor([0, 0]))
    with pytest.raises(ShapeError, match=r"pass policy\.lengths"):
        pro(bare, reward=column(1.0, 0.0))


def test_lists_that_differ_between_models_are_refused() -> None:
    other = ListLogps(column(-1.0, -2.0), torch.tensor([0, 1]))
    with pytest.raises(ShapeError, match="or their lists differ"):
        lipo(lists([-1.0, -2.0]), other, label=column(1.0, 0.0))
