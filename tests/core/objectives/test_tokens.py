import math
from functools import partial

import pytest
import torch
from trillium.errors import ShapeError
from trillium.objectives.batch import PairLogps, PairTokens
from trillium.objectives.numerics import token_kl
from trillium.objectives.pairwise import dpo
from trillium.objectives.tokens import mapo_mask, oreo, oreo_losses, sparsepo, tdpo


def tokens(seed: int, *, n_chosen: int = 3, n_rejected: int = 4) -> PairTokens:
    generator = torch.Generator().manual_seed(seed)
    chosen, rejected = (
        -torch.rand(2, n, generator=generator, dtype=torch.float64) for n in (n_chosen, n_rejected)
    )
    return PairTokens(chosen.requires_grad_(), rejected.requires_grad_())


def absolute(pair: PairTokens) -> PairTokens:
    return PairTokens(pair.chosen.abs(), pair.rejected.abs())


POLICY, REFERENCE, KL = tokens(0), tokens(1), absolute(tokens(2))
ZEROS = PairTokens(torch.zeros_like(KL.chosen), torch.zeros_like(KL.rejected))
ONES = PairTokens(torch.ones_like(KL.chosen), torch.ones_like(KL.rejected))


def sums(pair: PairTokens) -> PairLogps:
    return PairLogps(pair.chosen.sum(-1), pair.rejected.sum(-1))


@pytest.mark.parametrize("variant", ["tdpo1", "tdpo2"])
def test_tdpo_without_divergence_is_dpo(variant: str) -> None:
    losses = tdpo(POLICY, REFERENCE, kl=ZEROS, variant=variant, beta=0.3)
    expected = dpo(sums(POLICY), sums(REFERENCE), beta=0.3)
    torch.testing.assert_close(losses, expected, rtol=1e-14, atol=0)


def test_tdpo2_stops_the_gradient_of_the_chosen_divergence() -> None:
    chosen = KL.chosen.detach().clone().requires_grad_()
    rejected = KL.rejected.detach().clone().requires_grad_()
    losses = tdpo(POLICY, REFERENCE, kl=PairTokens(chosen, rejected))
    gradients = torch.autograd.grad(losses.sum(), [chosen, rejected], materialize_grads=True)
    assert not gradients[0].any()
    assert (gradients[1] > 0).all()


def test_sparsepo_with_masks_of_one_is_tdpo1() -> None:
    losses = sparsepo(POLICY, REFERENCE, kl=KL, mask_u=ONES, mask_d=ONES)
    expected = tdpo(POLICY, REFERENCE, kl=KL, variant="tdpo1")
    torch.testing.assert_close(losses, expected, rtol=1e-15, atol=0)


def test_a_masked_token_has_no_gradient() -> None:
    mask = PairTokens(torch.tensor([[1.0, 0.0, 1.0]] * 2).double(), ONES.rejected)
    losses = sparsepo(POLICY, REFERENCE, kl=KL, mask_u=mask, mask_d=mask)
    (gradient,) = torch.autograd.grad(losses.sum(), POLICY.chosen)
    assert gradient[:, 1].tolist() == [0.0, 0.0]
    assert (gradient[:, [0, 2]] < 0).all()


def test_the_penalty_is_the_size_of_the_masks() -> None:
    """Masks of one on 3 + 4 tokens: 0.1 * 7 + 0.02 * 7."""
    plain = sparsepo(POLICY, REFERENCE, kl=KL, mask_u=ONES, mask_d=ONES)
    dear = sparsepo(POLICY, REFERENCE, kl=KL, mask_u=ONES, mask_d=ONES, l1_u=0.1, l1_d=0.02)
    assert (dear - plain).tolist() == pytest.approx([0.84, 0.84])


def test_mapo_masks_lie_between_zero_and_one_and_ignore_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 5, 3, 8, generator=generator, requires_grad=True)
    scored = torch.tensor([[True, True, True, False, False], [True] * 5])
    mask = mapo_mask(hidden, scored)
    assert mask[0, 3:].tolist() == [0.0, 0.0]
    assert ((mask >= 0) & (mask <= 1)).all()
    assert not mask.requires_grad
    alone = mapo_mask(hidden[:1, :3], scored[:1, :3])
    torch.testing.assert_close(mask[:1, :3], alone)


def test_mapo_with_one_layer_spans_the_unit_interval() -> None:
    """Mean activations 1, 2, 4 rescale to 0, 1/3, 1 whatever the standardisation."""
    hidden = torch.tensor([1.0, 2.0, 4.0])[None, :, None, None].expand(1, 3, 1, 6)
    mask = mapo_mask(hidden, torch.ones(1, 3, dtype=torch.bool))
    assert mask[0].tolist() == pytest.approx([0.0, 1 / 3, 1.0], abs=1e-6)


def test_token_kl_of_equal_logits_is_zero_and_of_a_certain_token_is_its_surprise() -> None:
    certain = torch.tensor([0.0, -1e4, -1e4])
    flat = torch.zeros(3)
    assert token_kl(flat, flat).item() == 0.0
    assert token_kl(certain, flat).item() == pytest.approx(torch.tensor(3.0).log().item())


TRAJECTORY = {
    "values": torch.tensor([[0.5, 0.25, 0.0]], dtype=torch.float64),
    "scored": torch.tensor([[True, True, False]]),
    "reward": torch.tensor([1.0], dtype=torch.float64),
}


def test_oreo_is_zero_where_the_soft_bellman_equation_holds() -> None:
    """beta * A_t + V_t = R at beta 0.5: A_1 = 1 and A_2 = 1.5, so the log-ratios are -0.5, 1.5."""
    policy = torch.tensor([[-1.5, -0.5, -9.0]], dtype=torch.float64)
    reference = torch.tensor([[-1.0, -2.0, -1.0]], dtype=torch.float64)
    assert oreo(policy, reference, beta=0.5, alpha=0.0, **TRAJECTORY).tolist() == [0.0]
    divergence = torch.tensor([[0.5, 1.5, 99.0]], dtype=torch.float64)
    held = oreo(policy, reference, beta=0.5, alpha=0.1, reverse_kl=divergence, **TRAJECTORY)
    assert held.tolist() == [pytest.approx(0.1)]
    with pytest.raises(ShapeError, match=r"alpha is 0.01 and the divergence .* is missing"):
        oreo(policy, reference, **TRAJECTORY)


def test_oreo_takes_the_divergences_of_the_released_code_by_option() -> None:
    """At beta 0.5 the residuals are 0; log-ratios -0.5 and 1.5, so k3 = e^.5 - 1.5, e^-1.5 + .5."""
    policy = torch.tensor([[-1.5, -0.5, -9.0]], dtype=torch.float64)
    reference = torch.tensor([[-1.0, -2.0, -1.0]], dtype=torch.float64)
    held = partial(oreo, policy, reference, beta=0.5, alpha=0.1, **TRAJECTORY)
    k3 = (math.exp(0.5) - 1.5 + math.exp(-1.5) + 0.5) / 2
    assert held(divergence="sampled").tolist() == [pytest.approx(0.1 * k3, rel=1e-12)]
    forward = torch.tensor([[0.2, 0.6, 99.0]], dtype=torch.float64)
    assert held(divergence="forward", forward_kl=forward).tolist() == [pytest.approx(0.04)]
    with pytest.raises(ShapeError, match="pass forward_kl, or alpha=0"):
        held(divergence="forward", reverse_kl=forward)


def test_each_side_of_oreo_holds_the_other_still() -> None:
    policy = torch.tensor([[-1.5, -1.0, -9.0]], dtype=torch.float64, requires_grad=True)
    values = TRAJECTORY["values"].clone().requires_grad_()
    losses = oreo_losses(
        policy, torch.zeros_like(policy), beta=0.5, **{**TRAJECTORY, "values": values}
    )
    pairs = [(losses.value, policy), (losses.policy, values)]
    for loss, other in pairs:
        (gradient,) = torch.autograd.grad(
            loss.sum(), other, retain_graph=True, materialize_grads=True
        )
        assert not gradient.any()
