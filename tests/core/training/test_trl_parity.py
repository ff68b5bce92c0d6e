"""The same token ids through TRL 1.16's trainers and through ours: loss and gradients agree."""

import os
import warnings

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, set_peft_model_state_dict
from trillium.objectives import configs
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium.scoring.reference import BaseReference
from trillium.training.config import TrainConfig, training_arguments
from trillium.training.steps import Sample, StepCollator
from trillium.training.task import Task
from trillium.training.trainer import PrefTrainer

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    trl = pytest.importorskip("trl", reason="parity needs the extra trillium[trl]")
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
    from trl.experimental.cpo import CPOConfig, CPOTrainer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def split(tree):
    n_prompt = tree.path(0).scored.index(True)
    prompt = list(tree.path(0).ids[:n_prompt])
    return prompt, [list(tree.path(p).ids[n_prompt:]) for p in range(tree.n_paths)]


def gradients(model):
    return {
        name.replace(".default", ""): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def ours(objective, samples, policy, tmp_path):
    """One optimizer step, in the layout that differs most from TRL's and in small row batches."""
    config = TrainConfig(order="sequential", per_device_train_batch_size=len(samples))
    task = Task(
        samples=samples,
        held_out=(),
        objective=objective,
        reference=BaseReference(policy),
        collator=StepCollator("shared", 3, 100),
        order="sequential",
        identity="parity",
        keep_checkpoints=1,
        starts_at_reference=False,
    )
    trainer = PrefTrainer(policy, training_arguments(config, tmp_path, use_cpu=True), task)
    batches, n_trees = trainer.get_batch_samples(
        iter(trainer.get_train_dataloader()), 1, trainer.args.device
    )
    return trainer.training_step(policy, batches[0], n_trees), gradients(policy)


def trl_arguments(tmp_path):
    return {
        "output_dir": str(tmp_path),
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "gradient_checkpointing": False,
        "max_length": None,
        "per_device_train_batch_size": 8,
    }


def theirs(trainer, adapter, batch):
    set_peft_model_state_dict(trainer.model, adapter)
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.detach(), gradients(trainer.model)


def adapter_of(policy):
    return {
        name.replace(".default", ""): parameter.detach().clone()
        for name, parameter in policy.named_parameters()
        if parameter.requires_grad
    }


def assert_same(left, right, rtol=1e-4):
    torch.testing.assert_close(left[0], right[0], rtol=1e-5, atol=1e-5)
    assert left[1].keys() == right[1].keys()
    for name, gradient in left[1].items():
        torch.testing.assert_close(gradient, right[1][name], rtol=rtol, atol=2e-5, msg=name)


class SameIdsDPO(DPOTrainer):
    def _prepare_dataset(self, dataset, *_):
        return dataset


class SameIdsKTO(KTOTrainer):
    def _prepare_dataset(self, dataset, *_):
        return dataset


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        (configs.DPOConfig(beta=0.3), {"loss_type": ["sigmoid"], "beta": 0.3}),
        (configs.IPOConfig(tau=0.2), {"loss_type": ["ipo"], "beta": 0.2}),
        (configs.HingeConfig(beta=0.05), {"loss_type": ["hinge"], "beta": 0.05}),
        (
            configs.RDPOConfig(beta=0.1, epsilon=0.2),
            {"loss_type": ["robust"], "beta": 0.1, "label_smoothing": 0.2},
        ),
        (configs.LNDPOConfig(beta=2.0), {"loss_type": ["sigmoid_norm"], "beta": 2.0}),
        (
            configs.FDPOConfig(divergence="js", beta=0.1),
            {"f_divergence_type": "js_divergence", "beta": 0.1},
        ),
        (
            configs.FDPOConfig(divergence="forward_kl", beta=0.1),
            {"f_divergence_type": "forward_kl", "beta": 0.1},
        ),
        # TRL's coefficient is 1 - alpha of the paper.
        (
            configs.FDPOConfig(divergence="alpha", alpha=0.3, beta=0.1),
            {
                "f_divergence_type": "alpha_divergence",
                "f_alpha_divergence_coef": 0.7,
                "beta": 0.1,
            },
        ),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else None,
)
def test_dpo_trainer(objective, options, pairs, policy, tmp_path):
    trees = pairs(8)
    rows = []
    for tree in trees:
        prompt, (chosen, rejected) = split(tree)
        rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    trainer = SameIdsDPO(
        model=tiny_policy(),
        args=DPOConfig(**trl_arguments(tmp_path), **options),
        train_dataset=Dataset.from_list(rows),
        processing_class=tiny_tokenizer(),
        peft_config=LoraConfig(**LORA),
    )
    model = policy()
    peer = theirs(trainer, adapter_of(model), trainer.data_collator(rows))
    assert_same(ours(objective, [Sample(tree) for tree in trees], model, tmp_path), peer)


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_kto_trainer(beta, singles, policy, tmp_path):
    trees, others = singles(8), singles(8, seed=1)
    rows, samples = [], []
    for tree, other in zip(trees, others, strict=True):
        prompt, (reply,) = split(tree)
        mismatched = split(other)[1][0]
        rows.append(
            {
                "prompt_ids": prompt,
                "completion_ids": reply,
                "KL_completion_ids": mismatched,
                "label": bool(tree.labels["label"][0]),
            }
        )
        path = tree.path(0)
        n_prompt = len(prompt)
        joined = type(path)(
            path.ids[:n_prompt] + tuple(mismatched),
            (False,) * n_prompt + (True,) * len(mismatched),
        )
        samples.append(Sample(tree, type(tree).from_paths(tree.id, [joined], tree.labels)))
    trainer = SameIdsKTO(
        model=tiny_policy(),
        args=KTOConfig(**trl_arguments(tmp_path), beta=beta, train_sampling_strategy="sequential"),
        train_dataset=Dataset.from_list(rows),
        processing_class=tiny_tokenizer(),
        peft_config=LoraConfig(**LORA),
    )
    model = policy()
    peer = theirs(trainer, adapter_of(model), trainer.data_collator(rows))
    assert_same(ours(configs.KTOConfig(beta=beta), samples, model, tmp_path), peer)


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        (
            configs.SimPOConfig(beta=2.0, gamma_beta_ratio=0.25),
            {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.5, "cpo_alpha": 0.0},
        ),
        (
            configs.CPOConfig(beta=0.1, alpha=1.0),
            {"loss_type": "sigmoid", "beta": 0.1, "cpo_alpha": 1.0},
        ),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else None,
)
def test_cpo_trainer(objective, options, pairs, policy, tmp_path):
    trees = pairs(8)
    features = []
    for tree in trees:
        prompt, replies = split(tree)
        feature = {}
        for side, reply in zip(("chosen", "rejected"), replies, strict=True):
            feature[f"{side}_input_ids"] = prompt + reply
            feature[f"{side}_attention_mask"] = [1] * len(prompt + reply)
            feature[f"{side}_labels"] = [-100] * len(prompt) + reply
        features.append(feature)
    trainer = CPOTrainer(
        model=tiny_policy(),
        args=CPOConfig(**trl_arguments(tmp_path), **options),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=tiny_tokenizer(),
        peft_config=LoraConfig(**LORA),
    )
    model = policy()
    peer = theirs(trainer, adapter_of(model), trainer.data_collator(features))
    assert_same(ours(objective, [Sample(tree) for tree in trees], model, tmp_path), peer)
