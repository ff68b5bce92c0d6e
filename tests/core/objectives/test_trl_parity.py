"""Losses and parameter gradients against TRL 1.16's own trainers, on the same token ids.

TRL tokenizes and collates; we score the rows it made with a plain log-softmax and apply our
functions. `same` in the table means: equal here.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import LlamaForCausalLM
from trillium.objectives import configs
from trillium.objectives.batch import PairLogps, SingleLogps
from trillium.objectives.companions import tpo_triple
from trillium.objectives.evaluate import evaluate
from trillium.objectives.table import OBJECTIVES
from trillium.objectives.unpaired import kto_reference_point
from trillium.policies.tiny import tiny_policy, tiny_tokenizer

pytest.importorskip("trl", reason="trl is not installed (extra: trl)")
# TRL and transformers 5 deprecate names that TRL's trainers still use.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

ROWS = {
    "prompt": ["2 + 2 = ", "Name a colour.\n", "def add(a, b):\n"],
    "chosen": ["4", "Blue, like the sea.", "    return a + b\n"],
    "rejected": ["22", "Five.", "    return a - b  # wrong\n"],
}
SETTINGS: dict[str, object] = {
    "per_device_train_batch_size": 3,
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "activation_checkpointing": False,
    "disable_tqdm": True,
    "max_length": 512,
    "save_strategy": "no",
}

Batch = dict[str, Tensor]


def token_logps(model: LlamaForCausalLM, ids: Tensor, scored: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of scored token log-probabilities of each row, and their counts."""
    logits = model(input_ids=ids).logits[:, :-1]
    logps = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    scored = scored[:, 1:].bool()
    return (logps * scored).sum(-1), scored.sum(-1)


def score_pairs(model: LlamaForCausalLM, batch: Batch) -> PairLogps:
    """Score TRL's concatenated (chosen, rejected) rows."""
    sums, counts = token_logps(model, batch["input_ids"], batch["completion_mask"])
    return PairLogps(*sums.chunk(2), *counts.chunk(2))


def score_sides(model: LlamaForCausalLM, batch: Batch) -> PairLogps:
    """Score the rows of TRL's experimental trainers, which keep the two sides apart."""
    sides = [
        token_logps(model, batch[f"{side}_input_ids"], batch[f"{side}_labels"] != -100)
        for side in ("chosen", "rejected")
    ]
    return PairLogps(sides[0][0], sides[1][0], sides[0][1], sides[1][1])


def assert_equal(
    theirs: Tensor, their_model: torch.nn.Module, ours: Tensor, ours_model: LlamaForCausalLM
) -> None:
    """Compare two scalar losses and every parameter gradient they cause."""
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    their_gradients = torch.autograd.grad(theirs, list(their_model.parameters()))
    our_gradients = torch.autograd.grad(ours, list(ours_model.parameters()))
    largest = max(gradient.abs().max().item() for gradient in our_gradients)
    assert largest > 1e-6
    for expected, computed in zip(their_gradients, our_gradients, strict=True):
        torch.testing.assert_close(computed, expected, rtol=1e-4, atol=1e-5 * largest)


def dpo_losses(
    folder: Path,
    config: configs.PairConfig,
    *,
    columns: Mapping[str, Tensor] | None = None,
    **options: object,
) -> tuple[Tensor, Tensor, torch.nn.Module, LlamaForCausalLM]:
    from trl import DPOConfig, DPOTrainer

    trainer = DPOTrainer(
        model=tiny_policy(seed=0),
        ref_model=tiny_policy(seed=1),
        args=DPOConfig(output_dir=str(folder), **SETTINGS, **options),
        train_dataset=Dataset.from_dict(ROWS),
        processing_class=tiny_tokenizer(),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    model = tiny_policy(seed=0)
    with torch.no_grad():
        reference = score_pairs(tiny_policy(seed=1), batch)
    losses = evaluate(config, score_pairs(model, batch), reference, columns=columns)
    return trainer._compute_loss(trainer.model, batch, False), losses.mean(), trainer.model, model


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (configs.DPOConfig(beta=0.3), {"loss_type": ["sigmoid"], "beta": 0.3}),
        (configs.IPOConfig(tau=0.2), {"loss_type": ["ipo"], "beta": 0.2}),
        (configs.HingeConfig(beta=0.1), {"loss_type": ["hinge"], "beta": 0.1}),
        (
            configs.RDPOConfig(beta=0.2, epsilon=0.1),
            {"loss_type": ["robust"], "beta": 0.2, "label_smoothing": 0.1},
        ),
        (configs.LNDPOConfig(beta=2.0), {"loss_type": ["sigmoid_norm"], "beta": 2.0}),
        (
            configs.FDPOConfig(divergence="forward_kl", beta=0.01),
            {"f_divergence_type": "forward_kl", "beta": 0.01},
        ),
        (
            configs.FDPOConfig(divergence="js", beta=0.4),
            {"f_divergence_type": "js_divergence", "beta": 0.4},
        ),
        (
            configs.FDPOConfig(divergence="alpha", alpha=0.3, beta=0.05),
            {
                "f_divergence_type": "alpha_divergence",
                "f_alpha_divergence_coef": 1 - 0.3,
                "beta": 0.05,
            },
        ),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else "",
)
def test_dpo_trainer_has_the_same_loss_and_gradients(
    tmp_path: Path, config: configs.PairConfig, options: dict[str, object]
) -> None:
    theirs, ours, their_model, our_model = dpo_losses(tmp_path, config, **options)
    assert_equal(theirs, their_model, ours, our_model)
    assert OBJECTIVES[config.name].trl == ("differs" if config.name == "fdpo" else "same")


def test_dpo_trainer_ignores_label_smoothing(tmp_path: Path) -> None:
    config = configs.DPOConfig(beta=0.3, label_smoothing=0.2)
    theirs, ours, _, _ = dpo_losses(
        tmp_path, config, loss_type=["sigmoid"], beta=0.3, label_smoothing=0.2
    )
    plain = dpo_losses(tmp_path, configs.DPOConfig(beta=0.3), loss_type=["sigmoid"], beta=0.3)
    assert theirs.item() == pytest.approx(plain[0].item(), rel=1e-6)
    assert abs(ours.item() - theirs.item()) > 0.01


def test_dpo_trainer_averages_the_sft_term_of_rpo_over_tokens(tmp_path: Path) -> None:
    config = configs.RPOConfig(beta=0.1, eta=0.5, sft="mean")
    theirs, ours, _, _ = dpo_losses(
        tmp_path, config, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5], beta=0.1
    )
    assert OBJECTIVES["rpo"].trl == "differs"
    assert abs(ours.item() - theirs.item()) > 1e-3


def test_kto_trainer_has_the_same_loss_and_gradients(tmp_path: Path) -> None:
    from trl import KTOConfig, KTOTrainer

    rows = {
        "prompt": ROWS["prompt"],
        "completion": ROWS["chosen"],
        "label": [True, False, True],
    }
    trainer = KTOTrainer(
        model=tiny_policy(seed=0),
        ref_model=tiny_policy(seed=1),
        args=KTOConfig(output_dir=str(tmp_path), beta=0.3, desirable_weight=1.3, **SETTINGS),
        train_dataset=Dataset.from_dict(rows),
        processing_class=tiny_tokenizer(),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    model, reference = tiny_policy(seed=0), tiny_policy(seed=1)

    def rows_of(scorer: LlamaForCausalLM, prefix: str) -> SingleLogps:
        ids, mask = batch[f"{prefix}input_ids"], batch[f"{prefix}completion_mask"]
        return SingleLogps(*token_logps(scorer, ids, mask))

    with torch.no_grad():
        kl = kto_reference_point(rows_of(model, "KL_"), rows_of(reference, "KL_"))
        reference_rows = rows_of(reference, "")
    ours = evaluate(
        configs.KTOConfig(beta=0.3, w_desirable=1.3),
        rows_of(model, ""),
        reference_rows,
        labels={"label": batch["label"].float()},
        kl=kl,
    ).mean()
    assert_equal(trainer._compute_loss(trainer.model, batch, False), trainer.model, ours, model)
    assert OBJECTIVES["kto"].trl == "same"


def test_dpo_trainer_has_sppo_on_twice_the_scale_with_hard_labels(tmp_path: Path) -> None:
    win = {"p_win_chosen": torch.ones(3), "p_win_rejected": torch.zeros(3)}
    theirs, ours, their_model, our_model = dpo_losses(
        tmp_path,
        configs.SPPOConfig(beta=0.05, reduction="sum"),
        columns=win,
        loss_type=["sppo_hard"],
        beta=0.05,
    )
    assert_equal(theirs, their_model, ours, our_model)
    assert OBJECTIVES["sppo"].trl == "differs"


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("tpo", {"loss_type": "sigmoid", "beta": 0.2, "tpo_alpha": 0.9}),
        ("tpo_l", {"loss_type": "tpo-l", "beta": 2.0, "tpo_alpha": 0.9, "tpo_l_gamma": 0.7}),
    ],
)
def test_tpo_trainer_has_the_same_loss_and_gradients(
    tmp_path: Path, variant: Literal["tpo", "tpo_l"], options: dict[str, object]
) -> None:
    from trl.experimental.tpo import TPOConfig, TPOTrainer

    rows = {**ROWS, "reference": ["four", "Green.", "    return sum((a, b))\n"]}
    trainer = TPOTrainer(
        model=tiny_policy(seed=0),
        args=TPOConfig(output_dir=str(tmp_path), **SETTINGS, **options),
        train_dataset=Dataset.from_dict(rows),
        processing_class=tiny_tokenizer(),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    model = tiny_policy(seed=0)
    sums, counts = token_logps(model, batch["input_ids"], batch["completion_mask"])
    (chosen, rejected, gold), (n_chosen, n_rejected, n_gold) = sums.chunk(3), counts.chunk(3)
    ours = tpo_triple(
        PairLogps(chosen, rejected, n_chosen, n_rejected),
        gold=SingleLogps(gold, n_gold),
        variant=variant,
        beta=float(str(options["beta"])),
        alpha=0.9,
        gamma=0.7,
    ).mean()
    assert_equal(trainer._compute_loss(trainer.model, batch, False), trainer.model, ours, model)
    assert OBJECTIVES["tpo_triple"].trl == "same"


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (configs.CPOConfig(beta=0.2, alpha=0.5), {"beta": 0.2, "cpo_alpha": 0.5}),
        (
            configs.CPOConfig(beta=0.2, loss_type="hinge"),
            {"beta": 0.2, "loss_type": "hinge"},
        ),
        (
            configs.SimPOConfig(beta=2.0, gamma_beta_ratio=0.25),
            {"beta": 2.0, "simpo_gamma": 0.5, "loss_type": "simpo", "cpo_alpha": 0.0},
        ),
        (
            configs.SimPOConfig(beta=2.5, gamma_beta_ratio=0.4, label_smoothing=0.1),
            {
                "beta": 2.5,
                "simpo_gamma": 1.0,
                "loss_type": "simpo",
                "cpo_alpha": 0.0,
                "label_smoothing": 0.1,
            },
        ),
    ],
    ids=("cpo", "cpo-hinge", "simpo", "simpo-smoothed"),
)
def test_cpo_trainer_has_the_same_loss_and_gradients(
    tmp_path: Path, config: configs.PairConfig, options: dict[str, object]
) -> None:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    trainer = CPOTrainer(
        model=tiny_policy(seed=0),
        args=CPOConfig(output_dir=str(tmp_path), **SETTINGS, **options),
        train_dataset=Dataset.from_dict(ROWS),
        processing_class=tiny_tokenizer(),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    model = tiny_policy(seed=0)
    theirs, _ = trainer.get_batch_loss_metrics(trainer.model, batch)
    ours = evaluate(config, score_sides(model, batch)).mean()
    assert_equal(theirs, trainer.model, ours, model)
    assert OBJECTIVES[config.name].trl == "same"


def test_orpo_trainer_has_the_same_odds_and_another_likelihood(tmp_path: Path) -> None:
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    trainer = ORPOTrainer(
        model=tiny_policy(seed=0),
        args=ORPOConfig(output_dir=str(tmp_path), beta=0.3, **SETTINGS),
        train_dataset=Dataset.from_dict(ROWS),
        processing_class=tiny_tokenizer(),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    theirs, metrics = trainer.get_batch_loss_metrics(trainer.model, batch)
    policy = score_sides(tiny_policy(seed=0), batch)
    likelihood = -policy.per_token().chosen.mean()
    ours = evaluate(configs.ORPOConfig(lam=0.3), policy).mean()
    assert (ours - likelihood).item() == pytest.approx(
        theirs.item() - metrics["nll_loss"], rel=1e-4
    )
    assert abs(likelihood.item() - metrics["nll_loss"]) > 1e-2
    assert OBJECTIVES["orpo"].trl == "differs"


def test_orpo_over_sequences_is_the_loss_of_trl(tmp_path: Path) -> None:
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    trainer = ORPOTrainer(
        model=tiny_policy(seed=0),
        args=ORPOConfig(output_dir=str(tmp_path), beta=0.3, **SETTINGS),
        train_dataset=Dataset.from_dict(ROWS),
        processing_class=tiny_tokenizer(),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    theirs, _ = trainer.get_batch_loss_metrics(trainer.model, batch)
    model = tiny_policy(seed=0)
    attended, labels = batch["chosen_attention_mask"], batch["chosen_labels"]
    is_prompt = attended.bool() & (labels == -100)
    prompt = PairLogps(*2 * (token_logps(model, batch["chosen_input_ids"], is_prompt)[0],))
    counts = is_prompt[:, 1:].sum(-1)
    prompt = replace(prompt, n_chosen=counts, n_rejected=counts)
    ours = evaluate(
        configs.ORPOConfig(lam=0.3, nll="sequence"),
        score_sides(model, batch),
        computed={"policy_prompt": prompt},
    ).mean()
    assert_equal(theirs, trainer.model, ours, model)
