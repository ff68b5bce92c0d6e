"""Properties that hold for every pairwise objective, whatever the numbers."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from trillium.objectives import configs
from trillium.objectives.batch import PairLogps, SingleLogps
from trillium.objectives.evaluate import evaluate
from trillium.objectives.metrics import pair_rewards

pytestmark = pytest.mark.property

CONFIGS: dict[str, configs.PairConfig] = {
    "dpo": configs.DPOConfig(),
    "dpo-smoothed": configs.DPOConfig(label_smoothing=0.2),
    "dpo-reference-free": configs.DPOConfig(reference_free=True),
    "ipo-tokens": configs.IPOConfig(),
    "ipo-none": configs.IPOConfig(normalize="none"),
    "hinge": configs.HingeConfig(),
    "hinge-plain": configs.HingeConfig(normalize_by_ref=False),
    "rdpo": configs.RDPOConfig(epsilon=0.2),
    "fdpo-forward-kl": configs.FDPOConfig(divergence="forward_kl"),
    "fdpo-js": configs.FDPOConfig(divergence="js"),
    "fdpo-alpha": configs.FDPOConfig(divergence="alpha", alpha=0.3),
    "ln-dpo": configs.LNDPOConfig(),
    "rpo-sum": configs.RPOConfig(),
    "rpo-mean": configs.RPOConfig(sft="mean", beta=0.5, eta=0.2),
    "simpo": configs.SimPOConfig(),
    "simpo-hinge": configs.SimPOConfig(loss_type="hinge"),
    "orpo": configs.ORPOConfig(),
    "orpo-batch": configs.ORPOConfig(nll="batch"),
    "orpo-sequence": configs.ORPOConfig(nll="sequence"),
    "cpo": configs.CPOConfig(),
    "cpo-hinge": configs.CPOConfig(loss_type="hinge"),
    "asft": configs.ASFTConfig(),
    "asft-tempered": configs.ASFTConfig(beta=0.5),
}
# These regress or weigh the two sides differently: swapping does not mirror them.
LOPSIDED: dict[str, configs.PairConfig] = {
    "flex-dpo": configs.FlexDPOConfig(sft_coef=0.01),
    "modpo": configs.MODPOConfig(),
    "modpo-hinge": configs.MODPOConfig(loss_type="hinge"),
    "sppo": configs.SPPOConfig(beta=0.1),
    "gpo": configs.GPOConfig(beta=0.1),
}
COLUMNS = {
    "margin_chosen": 0.5,
    "margin_rejected": -0.25,
    "p_win_chosen": 0.9,
    "p_win_rejected": 0.2,
    "score_chosen": 0.5,
    "score_rejected": -1.5,
}
ALL = {**CONFIGS, **LOPSIDED}
every_ranking = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
every_pairwise = pytest.mark.parametrize("config", ALL.values(), ids=ALL)

# No sum is closer to zero than -0.2 per token, and no two sums differ enough to saturate float64.
logps = st.integers(min_value=-24, max_value=-1).map(lambda value: 0.75 * value)
counts = st.integers(min_value=1, max_value=12)
pairs = st.lists(
    st.tuples(logps, logps, logps, logps, counts, counts), min_size=2, max_size=5, unique=True
)
Rows = list[tuple[float, float, float, float, int, int]]


def batch(rows: Rows) -> tuple[PairLogps, PairLogps]:
    """Return policy (with gradients) and reference in float64."""
    chosen, rejected, ref_chosen, ref_rejected, n_chosen, n_rejected = (
        torch.tensor(column) for column in zip(*rows, strict=True)
    )
    policy = PairLogps(
        chosen.double().requires_grad_(), rejected.double().requires_grad_(), n_chosen, n_rejected
    )
    return policy, PairLogps(ref_chosen.double(), ref_rejected.double(), n_chosen, n_rejected)


def losses_of(
    config: configs.PairConfig, policy: PairLogps, reference: PairLogps | None = None
) -> Tensor:
    columns = {name: torch.full_like(policy.chosen, value) for name, value in COLUMNS.items()}
    prompt = PairLogps(*(torch.full_like(policy.chosen, -2.5) for _ in range(2)))
    return evaluate(
        config,
        policy,
        reference,
        columns=columns,
        tokens_per_pair=5.0,
        computed={"policy_prompt": prompt},
    )


def test_every_pairwise_objective_is_tested_here() -> None:
    plain = {config.model_fields["name"].default for config in get_args(configs.PairConfig)}
    assert {config.name for config in ALL.values()} == plain


def swapped(pair: PairLogps) -> PairLogps:
    return PairLogps(pair.rejected, pair.chosen, pair.n_rejected, pair.n_chosen)


def gradients(config: configs.PairConfig, policy: PairLogps, reference: PairLogps) -> list[Tensor]:
    losses = losses_of(config, policy, reference)
    return list(torch.autograd.grad(losses.sum(), [policy.chosen, policy.rejected]))


@every_ranking
@given(rows=pairs)
@settings(deadline=None, max_examples=30)
def test_swapping_the_responses_flips_the_margin(config: configs.PairConfig, rows: Rows) -> None:
    policy, reference = batch(rows)
    margins = pair_rewards(config, policy, reference).margins
    flipped = pair_rewards(config, swapped(policy), swapped(reference)).margins
    torch.testing.assert_close(flipped, -margins, rtol=0, atol=0)


@every_ranking
@given(rows=pairs)
@settings(deadline=None, max_examples=30)
def test_a_step_downhill_never_lowers_the_margin(config: configs.PairConfig, rows: Rows) -> None:
    policy, reference = batch(rows)
    chosen, rejected = gradients(config, policy, reference)
    if config.name == "ipo":
        # A margin beyond its target is pulled back; below the target the rule holds.
        u = policy.against(reference)
        u = u.per_token() if config.normalize == "tokens" else u
        is_below = u.chosen - u.rejected <= 1 / (2 * config.tau)
        chosen, rejected = chosen[is_below], rejected[is_below]
    if config.name in {"dpo", "simpo"} and config.label_smoothing:
        # A smoothed loss has its minimum where sigmoid(z) = 1 - eps.
        z = pair_rewards(config, policy, reference).margins
        is_below = torch.sigmoid(z) <= 1 - config.label_smoothing
        chosen, rejected = chosen[is_below], rejected[is_below]
    assert (chosen <= 0).all()
    assert (rejected >= 0).all()


@every_pairwise
@given(rows=pairs, seed=st.integers(min_value=0, max_value=99))
@settings(deadline=None, max_examples=30)
def test_shuffling_the_batch_permutes_the_losses(
    config: configs.PairConfig, rows: Rows, seed: int
) -> None:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    losses = losses_of(config, *batch(rows))
    shuffled = losses_of(config, *batch([rows[index] for index in order]))
    torch.testing.assert_close(shuffled, losses[order], rtol=0, atol=0)


@every_pairwise
@given(rows=pairs)
@settings(deadline=None, max_examples=8)
def test_the_gradient_is_that_of_finite_differences(config: configs.PairConfig, rows: Rows) -> None:
    policy, reference = batch(rows)
    if "hinge" in config.model_dump().values() or config.name == "hinge":
        margins = pair_rewards(config, policy, reference).margins
        if config.name == "simpo":
            margins = margins - config.beta * config.gamma_beta_ratio
        if config.name == "modpo":
            others = COLUMNS["margin_chosen"] - COLUMNS["margin_rejected"]
            margins = (margins - config.w[1] * others) / config.w[0]
        if ((margins - 1).abs() < 1e-3).any():
            return  # on the kink there is no derivative

    def losses(chosen: Tensor, rejected: Tensor) -> Tensor:
        moved = PairLogps(chosen, rejected, policy.n_chosen, policy.n_rejected)
        return losses_of(config, moved, reference)

    assert torch.autograd.gradcheck(losses, (policy.chosen, policy.rejected))


@every_pairwise
@pytest.mark.parametrize("distance", [200.0, 10_000.0])
def test_losses_and_gradients_are_finite_in_float32_far_from_the_reference(
    config: configs.PairConfig, distance: float
) -> None:
    near, far = -1.0, -1.0 - distance
    sums = torch.tensor([[near, far, far, near], [far, near, near, far], [far, far, near, near]])
    policy = PairLogps(
        sums[:, 0].clone().requires_grad_(),
        sums[:, 1].clone().requires_grad_(),
        torch.tensor([1, 1, 7]),
        torch.tensor([1, 1, 9]),
    )
    reference = PairLogps(sums[:, 2], sums[:, 3], policy.n_chosen, policy.n_rejected)
    losses = losses_of(config, policy, reference)
    assert losses.isfinite().all()
    for gradient in gradients(config, policy, reference):
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "name", ["dpo", "dpo-smoothed", "rdpo", "fdpo-forward-kl", "fdpo-js", "fdpo-alpha", "ln-dpo"]
)
@given(rows=pairs)
@settings(deadline=None, max_examples=20)
def test_a_policy_equal_to_its_reference_costs_ln2(name: str, rows: Rows) -> None:
    _, reference = batch(rows)
    losses = evaluate(CONFIGS[name], reference, reference)
    torch.testing.assert_close(losses, torch.full_like(losses, math.log(2)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["orpo", "asft", "simpo", "cpo"])
def test_a_response_of_probability_one_costs_a_finite_amount(name: str) -> None:
    policy = PairLogps(
        torch.tensor([0.0, -3.0], requires_grad=True),
        torch.tensor([-3.0, 0.0], requires_grad=True),
        torch.tensor([2, 2]),
        torch.tensor([2, 2]),
    )
    losses = evaluate(CONFIGS[name], policy)
    assert losses.isfinite().all()
    for gradient in torch.autograd.grad(losses.sum(), [policy.chosen, policy.rejected]):
        assert gradient.isfinite().all()


def single(values: list[float]) -> SingleLogps:
    return SingleLogps(torch.tensor(values, dtype=torch.float64).requires_grad_())


@given(rows=pairs, kl=st.floats(min_value=0, max_value=5))
@settings(deadline=None, max_examples=30)
def test_kto_pushes_desirable_responses_up_and_undesirable_ones_down(rows: Rows, kl: float) -> None:
    policy, reference = single([row[0] for row in rows]), single([row[2] for row in rows])
    label = torch.arange(len(rows)).remainder(2).double()
    losses = evaluate(
        configs.KTOConfig(),
        policy,
        reference,
        labels={"label": label},
        kl=torch.tensor(kl, dtype=torch.float64),
    )
    (gradient,) = torch.autograd.grad(losses.sum(), policy.logps)
    assert (gradient[label == 1] <= 0).all()
    assert (gradient[label == 0] >= 0).all()
    assert ((losses >= 0) & (losses <= 1)).all()


@pytest.mark.parametrize("distance", [200.0, 10_000.0])
def test_kto_is_finite_in_float32_far_from_the_reference(distance: float) -> None:
    policy = SingleLogps(torch.tensor([-1.0, -1.0 - distance] * 2, requires_grad=True))
    reference = SingleLogps(torch.tensor([-1.0 - distance, -1.0] * 2))
    label = torch.tensor([1.0, 1.0, 0.0, 0.0])
    losses = evaluate(
        configs.KTOConfig(), policy, reference, labels={"label": label}, kl=torch.tensor(0.5)
    )
    (gradient,) = torch.autograd.grad(losses.sum(), policy.logps)
    assert losses.tolist() == pytest.approx([0.0, 1.0, 1.0, 0.0], abs=1e-8)
    assert gradient.isfinite().all()
