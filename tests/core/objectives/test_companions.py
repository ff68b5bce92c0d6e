import pytest
import torch
from trillium.errors import ShapeError
from trillium.objectives.batch import PairLogps, SideStream, SingleLogps
from trillium.objectives.companions import (
    c3po,
    dove,
    rationale_dpo,
    slic,
    srpo,
    tpo_triple,
    xpo,
)
from trillium.objectives.numerics import token_kl
from trillium.objectives.pairwise import dpo
from trillium.objectives.reference_free import cpo


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


COUNTS = torch.tensor([4, 10])
POLICY = PairLogps(column(-10.0, -20.0), column(-12.0, -19.0), COUNTS, COUNTS)
REFERENCE = PairLogps(column(-11.0, -22.0), column(-11.5, -18.0), COUNTS, COUNTS)


def test_dove_with_equal_prompts_is_dpo() -> None:
    prompt = PairLogps(column(-5.0, -7.0), column(-5.0, -7.0))
    before = PairLogps(column(-6.0, -6.5), column(-6.0, -6.5))
    joint = dove(POLICY, REFERENCE, policy_prompt=prompt, reference_prompt=before)
    torch.testing.assert_close(joint, dpo(POLICY, REFERENCE), rtol=1e-14, atol=0)


def test_slic_keeps_only_its_likelihood_beyond_the_margin() -> None:
    """Margins are 2 and -1; delta = 1.5 leaves max(0, -0.5) = 0 and 2.5."""
    losses = slic(POLICY, target=column(-3.0, -4.0), delta=1.5, lam=0.5)
    assert losses.tolist() == [1.5, 4.5]


def test_tpo_with_the_chosen_response_as_gold_is_cpo() -> None:
    gold = SingleLogps(POLICY.chosen, COUNTS)
    triple = tpo_triple(POLICY, gold=gold, beta=0.3, alpha=0.7)
    torch.testing.assert_close(triple, cpo(POLICY, beta=0.3, alpha=0.7), rtol=1e-14, atol=0)


def test_tpo_without_gold_counts_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"pass gold\.lengths"):
        tpo_triple(POLICY, gold=SingleLogps(POLICY.chosen))


def test_the_two_forms_of_rationale_dpo_agree_far_from_zero() -> None:
    """-log sigmoid(x) tends to -x."""
    rationale = column(-60.0, -80.0)
    forms = [
        rationale_dpo(POLICY, REFERENCE, rationale=rationale, gamma=1.0, form=form)
        for form in ("nll", "logsigmoid")
    ]
    torch.testing.assert_close(*forms, rtol=1e-14, atol=0)


def test_xpo_pushes_the_sample_of_the_reference_down() -> None:
    sample = POLICY.rejected.clone().requires_grad_()
    losses = xpo(POLICY, REFERENCE, reference_sample=sample, alpha=0.01)
    (gradient,) = torch.autograd.grad(losses.sum(), sample)
    assert gradient.tolist() == [0.01, 0.01]


def test_srpo_is_zero_at_the_optimum_of_a_symmetric_game() -> None:
    """p = 1, beta = 0.5: r_w|l - r_l|l = 1, r_l|w - r_w|w = -1, r_w - r_l = 2 - (r_w|l - r_l|w)."""
    losses = srpo(
        PairLogps(column(0.75), column(0.25)),
        given_chosen=PairLogps(column(0.25), column(-0.75)),
        given_rejected=PairLogps(column(0.75), column(-0.25)),
        p_win=column(1.0),
        beta=0.5,
    )
    assert losses.tolist() == [0.0]


def stream(logits: torch.Tensor, teacher: torch.Tensor, temp: float = 1.0) -> SideStream:
    scored = torch.tensor([[True, False], [True, True]])
    logps = torch.where(scored, logits.log_softmax(-1)[..., 0], 0.0).sum(-1)
    kl = torch.where(scored, token_kl(teacher / temp, logits / temp), 0.0).sum(-1)
    return SideStream(logps, scored.sum(-1), kl)


def test_c3po_of_an_unchanged_policy_is_dpo_when_only_distilling() -> None:
    logits = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    side = stream(logits, logits, temp=3.0)
    losses = c3po(POLICY, REFERENCE, near_scope=side, out_of_scope=side, kd_lambda=1.0, temp=3.0)
    torch.testing.assert_close(losses, dpo(POLICY, REFERENCE), rtol=1e-14, atol=1e-15)


def test_c3po_weighs_every_token_of_a_stream_alike_however_a_step_is_cut() -> None:
    """CE = -(sum S)/(sum n) over the step: rows of 2 and 4 tokens, one at a time, 3 on average."""
    pair = PairLogps(column(-1.0), column(-2.0))
    whole = SideStream(torch.tensor([-4.0, -2.0]), torch.tensor([2, 4]))
    parts = [
        c3po(
            pair,
            pair,
            near_scope=SideStream(whole.logps[i : i + 1], whole.lengths[i : i + 1]),
            out_of_scope=SideStream(column(0.0).float(), torch.tensor([1])),
            tokens_per_near=3.0,
            tokens_per_out=1.0,
            sigma_hard=1.0,
        )
        for i in range(2)
    ]
    ln2 = 0.6931471805599453
    assert sum(part.item() - ln2 for part in parts) / 2 == pytest.approx(6 / 6)


def test_c3po_that_distils_asks_for_the_divergences() -> None:
    side = SideStream(torch.tensor([-4.0]), torch.tensor([2]))
    with pytest.raises(ShapeError, match=r"kd_lambda is 0\.5 and the divergences are missing"):
        c3po(POLICY, REFERENCE, near_scope=side, out_of_scope=side, kd_lambda=0.5)
