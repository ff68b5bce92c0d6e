"""Supervised training on token paths with TRL's SFTTrainer and our masks; resumable.

Used for the warm-up on demonstrations and for rejection sampling on the policy's own right
trajectories. Labels come from the paths' masks; TRL prepares nothing.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from transformers import (
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trillium.deployment.provenance import record_provenance, warn_of
from trillium.files import hash_json
from trillium.policies.adapters import adapter_digest, save_adapter
from trillium.policies.load import Policy
from trillium.runs import hash_config
from trillium.training.callbacks import ShowProgress
from trillium.training.checkpoints import (
    guard_disk,
    newest_checkpoint,
    prune_checkpoints,
    seal_checkpoint,
    step_of,
)
from trillium.trees import TokenPath

from trillium_math.supervised_config import SupervisedConfig, check_trl

_IGNORED = -100


def fine_tune(
    paths: Sequence[TokenPath],
    policy: Policy,
    config: SupervisedConfig,
    output: Path,
    *,
    seed: int,
    title: str,
) -> dict[str, int | float]:
    """Train the policy's adapter on the scored tokens of `paths` and save it to `output/adapter`.

    Killed and called again with the same inputs, it continues from the newest checkpoint. Raises
    ConfigError when TRL is not installed.
    """
    check_trl(title)
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    n_steps = config.num_train_epochs * math.ceil(len(paths) / config.per_device_train_batch_size)
    identity = hash_json(
        [
            [path.digest for path in paths],
            hash_config(config),
            adapter_digest(policy.model),
            seed,
        ]
    )
    rows = [
        {
            "input_ids": list(path.ids),
            "labels": [
                token if is_scored else _IGNORED
                for token, is_scored in zip(path.ids, path.scored, strict=True)
            ],
        }
        for path in paths
    ]

    class AdapterTrainer(SFTTrainer):
        def _save(self, output_dir: str | None = None, state_dict: object = None) -> None:
            """Save the adapter alone; PEFT would ask the hub whether the base was resized."""
            save_adapter(policy.model, Path(output_dir or output))

    bar = ShowProgress(title)
    base = policy.model.get_base_model()
    assert isinstance(base, PreTrainedModel)  # a causal language model is one
    tags = list(base.model_tags or ())
    trainer = AdapterTrainer(
        model=policy.model,
        args=SFTConfig(
            output_dir=str(output),
            learning_rate=config.learning_rate,
            lr_scheduler_type="cosine",
            # The first step of a warm-up has the rate 0: a short run can do without.
            warmup_steps=n_steps // 20,
            max_steps=n_steps,
            per_device_train_batch_size=config.per_device_train_batch_size,
            save_strategy="steps",
            save_steps=config.save_steps,
            logging_steps=1,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            activation_checkpointing=False,
            bf16=False,
            seed=seed,
            use_cpu=next(policy.model.parameters()).device.type == "cpu",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=policy.tokenizer,
        callbacks=[bar, _Seal(identity)],
    )
    # Every step is in the trainer's state; nobody needs it on standard output as well.
    trainer.remove_callback(PrinterCallback)
    checkpoint = newest_checkpoint(output, identity, last_recorded=n_steps)
    try:
        if checkpoint is not None and step_of(checkpoint) >= n_steps:
            # The Trainer itself would always take one more step.
            trainer._load_from_checkpoint(str(checkpoint))
        else:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        bar.close()
    with guard_disk(output / "adapter"):
        save_adapter(policy.model, output / "adapter")
        problems = record_provenance(
            output / "adapter",
            policy.model,
            method={"name": "supervised", **config.model_dump(mode="json")},
            reference=None,
            identity=identity,
            n_examples=len(paths),
        )
    # TRL's tags are this adapter's; a later stage in another process would save none.
    base.model_tags = tags
    warn_of(output / "adapter", problems)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {
        "steps": n_steps,
        "trajectories": len(paths),
        "tokens": config.num_train_epochs * sum(len(path.ids) for path in paths),
        **({"first_loss": losses[0], "last_loss": losses[-1]} if losses else {}),
    }


class _Seal(TrainerCallback):
    """Seal each checkpoint, so that one cut short is never continued; keep the newest two."""

    def __init__(self, identity: str) -> None:
        self._identity = identity

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        output = Path(str(args.output_dir))
        seal_checkpoint(output / f"checkpoint-{state.global_step}", self._identity)
        prune_checkpoints(output, 2)
