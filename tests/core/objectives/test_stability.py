"""Every objective far from its reference: finite losses and gradients in float32.

Log-probabilities are drawn from -1 and -1 - d per token or response, policy and reference each for
itself, so that differences are 0 and ±d for d = 200 and 10,000. Pairs alone are in test_properties,
where the same is asserted for each configuration.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from trillium.objectives import (
    companions,
    embeddings,
    iterations,
    listwise,
    pairwise,
    rollouts,
    tokens,
    tree,
    unpaired,
)
from trillium.objectives.batch import (
    ListLogps,
    ListSteps,
    PairLogps,
    PairTokens,
    SideStream,
    SingleLogps,
)
from trillium.objectives.configs import PairConfig
from trillium.objectives.table import OBJECTIVES

pytestmark = pytest.mark.property


@dataclass
class Far:
    """Give tensors of log-probabilities, near zero or `distance` away, as drawn bits say."""

    distance: float
    bits: list[bool]
    leaves: list[Tensor] = field(default_factory=list)
    n_drawn: int = 0

    def draw(self, *size: int) -> Tensor:
        n = int(torch.Size(size).numel())
        taken = [self.bits[(self.n_drawn + i) % len(self.bits)] for i in range(n)]
        self.n_drawn += n
        leaf = (-1.0 - self.distance * torch.tensor(taken).float()).reshape(size)
        self.leaves.append(leaf.requires_grad_())
        return leaf

    def pair(self) -> PairLogps:
        n = torch.tensor([1, 7])
        return PairLogps(self.draw(2), self.draw(2), n, n.flip(0))

    def tokens(self) -> PairTokens:
        return PairTokens(self.draw(2, 3), self.draw(2, 4))

    def lists(self) -> ListLogps:
        return ListLogps(self.draw(5), GROUP, torch.tensor([1, 2, 3, 4, 50]))

    def stream(self) -> SideStream:
        return SideStream(self.draw(3), torch.tensor([1, 4, 9]), -self.draw(3))


GROUP = torch.tensor([0, 0, 0, 1, 1])
LABEL = torch.tensor([0.9, 0.1, 0.5, 0.2, 0.8])
SCORED = torch.tensor([[True, True, True], [True, False, False]])
LIPO_VARIANTS = get_args(listwise.LipoVariant)
Loss = Callable[[Far], Tensor]


def c3po(far: Far) -> Tensor:
    return companions.c3po(
        far.pair(),
        far.pair(),
        near_scope=far.stream(),
        out_of_scope=far.stream(),
        kd_lambda=0.5,
        temp=5.0,
    )


def rto(far: Far) -> Tensor:
    rows = [far.draw(2, 3) for _ in range(4)]
    reward = torch.tensor([1e4, -1e4])
    found = rollouts.rto(*rows[:3], scored=SCORED, reward=reward, values=rows[3])
    return found.advantages + found.returns


def p3o(far: Far, variant: str) -> Tensor:
    first, second, old_first, old_second = (far.draw(2) for _ in range(4))
    return rollouts.p3o(
        first,
        second,
        old_first=old_first.detach(),
        old_second=old_second.detach(),
        reward_first=torch.tensor([3.0, -1.0]),
        reward_second=torch.tensor([-2.0, 1.0]),
        variant=variant,
    )


def sparsepo(far: Far) -> Tensor:
    policy, reference = far.tokens(), far.tokens()
    kl, mask = (PairTokens(-x.chosen, -x.rejected) for x in (far.tokens(), far.tokens()))
    return tokens.sparsepo(policy, reference, kl=kl, mask_u=mask, mask_d=mask, l1_u=1e-3, l1_d=1e-3)


def tdpo(far: Far, variant: str) -> Tensor:
    policy, reference, drawn = far.tokens(), far.tokens(), far.tokens()
    kl = PairTokens(-drawn.chosen, -drawn.rejected)
    return tokens.tdpo(policy, reference, kl=kl, variant=variant)


def tree_tpo(far: Far, variant: str) -> Tensor:
    policy, reference = (ListSteps(far.draw(5, 2), GROUP) for _ in range(2))
    weight = torch.full((5, 2), 2.0)
    return tree.tree_tpo(policy, reference, label=LABEL, step_weight=weight, variant=variant)


def sampled(far: Far) -> Tensor:
    fixed = {"scored": SCORED, "reward": torch.tensor([1.0, 0.0])}
    values = far.draw(2, 3)
    policy, reference = far.draw(2, 3), far.draw(2, 3)
    return tokens.oreo(policy, reference, values=values, divergence="sampled", **fixed)


def rewarded(far: Far) -> Tensor:
    values = far.draw(2, 3)
    return tokens.oreo(
        far.draw(2, 3),
        far.draw(2, 3),
        values=values,
        scored=SCORED,
        reward=torch.tensor([1.0, 0.0]),
        reverse_kl=-far.draw(2, 3),
    )


LOSSES: dict[str, Loss] = {
    "kto": lambda far: unpaired.kto(
        SingleLogps(far.draw(4)),
        SingleLogps(far.draw(4)),
        label=torch.tensor([1.0, 0.0, 1.0, 0.0]),
        kl=torch.tensor(0.5),
    ),
    "poft": lambda far: unpaired.poft(
        SingleLogps(far.draw(3), torch.tensor([1, 2, 3])), aligned_mean_logps=far.draw(3, 2)
    ),
    "meet": lambda far: unpaired.meet(
        SingleLogps(far.draw(3), torch.tensor([1, 2, 3])),
        SingleLogps(far.draw(3), torch.tensor([1, 2, 3])),
    ),
    "dove": lambda far: companions.dove(
        far.pair(), far.pair(), policy_prompt=far.pair(), reference_prompt=far.pair()
    ),
    "slic": lambda far: companions.slic(far.pair(), target=far.draw(2)),
    "tpo_triple": lambda far: companions.tpo_triple(
        far.pair(), gold=SingleLogps(far.draw(2), torch.tensor([1, 5]))
    ),
    "tpo_triple-tpo_l": lambda far: companions.tpo_triple(
        far.pair(), gold=SingleLogps(far.draw(2), torch.tensor([1, 5])), variant="tpo_l", beta=10.0
    ),
    **{
        f"rationale_dpo-{form}": lambda far, form=form: companions.rationale_dpo(
            far.pair(), far.pair(), rationale=far.draw(2), form=form
        )
        for form in ("nll", "logsigmoid")
    },
    "xpo": lambda far: companions.xpo(far.pair(), far.pair(), reference_sample=far.draw(2)),
    "srpo": lambda far: companions.srpo(
        far.pair().against(far.pair()),
        given_chosen=far.pair().against(far.pair()),
        given_rejected=far.pair().against(far.pair()),
        p_win=torch.tensor([1.0, 0.3]),
    ),
    "c3po": c3po,
    "ofs_dpo": lambda far: iterations.ofs_dpo(far.pair(), far.pair(), far.pair()),
    "apo_accelerated": lambda far: iterations.apo_accelerated(far.draw(3), far.draw(3)),
    **{
        f"lipo-{variant}": lambda far, variant=variant: listwise.lipo(
            far.lists(), far.lists(), label=LABEL, variant=variant
        )
        for variant in LIPO_VARIANTS
    },
    "pro": lambda far: listwise.pro(far.lists(), reward=10 * LABEL),
    "pro-eps": lambda far: listwise.pro(far.lists(), reward=10 * LABEL, eps=1e-10),
    "tree_tpo": lambda far: tree_tpo(far, "intended"),
    "tree_tpo-official": lambda far: tree_tpo(far, "official"),
    "tdpo": lambda far: tdpo(far, "tdpo2"),
    "tdpo-tdpo1": lambda far: tdpo(far, "tdpo1"),
    "sparsepo": sparsepo,
    "oreo": rewarded,
    "oreo-sampled": sampled,
    "rto": rto,
    **{
        f"hypo-{rloo}": lambda far, rloo=rloo: rollouts.hypo(
            far.pair(),
            far.pair(),
            policy_sample=far.draw(2, 3),
            reference_sample=far.draw(2, 3),
            rloo=rloo,
        )
        for rloo in (False, True)
    },
    "p3o": lambda far: p3o(far, "v2"),
    "p3o-v1": lambda far: p3o(far, "v1"),
    "gpm": lambda far: embeddings.gpm(far.draw(2, 4), far.draw(2, 4)),
    "spo_degree": lambda far: embeddings.spo_degree(
        far.pair(), far.pair(), degree_logits=far.draw(2, 3), degree_label=torch.tensor([0, 2])
    ),
    "oppo": lambda far: embeddings.oppo(
        far.draw(4), far.draw(2, 4), far.draw(2, 4), recon=far.draw(1).sum()
    ),
    # The loss that recipes minimise on what these two choose.
    "curry_dpo": lambda far: pairwise.dpo(far.pair(), far.pair()),
    "rso": lambda far: iterations.rso_acceptance(far.draw(4)),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@given(
    distance=st.sampled_from([200.0, 10_000.0]),
    bits=st.lists(st.booleans(), min_size=7, max_size=31),
)
@settings(deadline=None, max_examples=20)
def test_losses_and_gradients_are_finite_in_float32(
    loss: Loss, distance: float, bits: list[bool]
) -> None:
    far = Far(distance, bits)
    losses = loss(far)
    assert losses.isfinite().all()
    for gradient in torch.autograd.grad(losses.sum(), far.leaves, allow_unused=True):
        assert gradient is None or gradient.isfinite().all()


def test_no_objective_is_left_out() -> None:
    plain = {config.model_fields["name"].default for config in get_args(PairConfig)}
    assert plain | {name.partition("-")[0] for name in LOSSES} == set(OBJECTIVES)
