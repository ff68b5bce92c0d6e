"""Bindings of the listwise and tree objectives; files hold lists as rows of one length."""

from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from trillium.errors import DataError
from trillium.objectives import listwise, recipe_configs, tree
from trillium.objectives.batch import ListLogps, ListSteps
from trillium.objectives.bindings.inputs import CaseInputs, Outcome, configure

HParams = Mapping[str, object]


def bind_lipo(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute a LiPO loss; files repeat the base of the logarithm that a variant implies."""
    rest = {key: value for key, value in hparams.items() if key != "log_base"}
    config = configure(recipe_configs.LiPOConfig, rest, inputs)
    base = hparams.get("log_base", "")
    if base and (config.variant, base) not in {("lambda", "e"), ("lambda_rax", "2")}:
        raise DataError(
            f"{inputs.where}: {config.variant} has no form with log_base {base} (lambda has e, "
            "lambda_rax has 2); correct the file"
        )
    policy, reference = (
        ListLogps(inputs.real(name).flatten(), _groups(inputs.real(name)))
        for name in ("policy_logps", "ref_logps")
    )
    label = inputs.real("labels").flatten()
    return Outcome(
        listwise.lipo(policy, reference, label=label, variant=config.variant, beta=config.beta)
    )


def bind_pro(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute PRO; `skip_check` in a file speaks to whoever wrote it."""
    rest = {key: value for key, value in hparams.items() if key != "skip_check"}
    config = configure(recipe_configs.PROConfig, rest, inputs)
    logps, lengths = inputs.real("policy_logps"), inputs.whole("lens")
    policy = ListLogps(logps.flatten(), _groups(logps), lengths.flatten())
    reward = inputs.real("rewards").flatten()
    losses = listwise.pro(policy, reward=reward, sft_weight=config.sft_weight, eps=config.eps)
    ranking = listwise.pro_ranking(policy, reward, eps=config.eps)
    return Outcome(losses, extras={"rank_losses": ranking})


def bind_tree_tpo(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute tree preference optimisation from padded steps."""
    config = configure(recipe_configs.TreeTPOConfig, hparams, inputs)
    shape = inputs.real("policy_step_logps").shape
    group = _groups(inputs.real("labels"))
    policy, reference = (
        ListSteps(inputs.real(name).flatten(0, 1), group)
        for name in ("policy_step_logps", "ref_step_logps")
    )
    label, weight = inputs.real("labels").flatten(), inputs.real("step_weights").flatten(0, 1)
    losses = tree.tree_tpo(
        policy,
        reference,
        label=label,
        step_weight=weight,
        variant=config.variant,
        beta=config.beta,
        normalize_steps=config.normalize_steps,
    )
    z = tree.tree_scores(policy, reference, weight, normalize_steps=config.normalize_steps)
    official = tree.official_ranking(z, label, policy).mean()
    ranking = official if config.variant == "official" else losses.mean()
    return Outcome(losses, extras={"rank_loss": ranking, "scores": z.reshape(shape[:2])})


def _groups(rows: Tensor) -> Int[Tensor, " response"]:
    """Return the list of each response when every row is a list."""
    return torch.arange(rows.shape[0]).repeat_interleave(rows.shape[1])
