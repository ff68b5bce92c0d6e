"""How to train: one frozen model, and its translation into transformers' TrainingArguments.

The keys carry the names that TrainingArguments uses. Only what a preference run can honour is
accepted; everything else is an unknown key.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WrapValidator

from trillium.config import Seed
from trillium.objectives.configs import DPOConfig, ObjectiveConfig

if TYPE_CHECKING:
    from transformers import TrainingArguments

Order = Literal["length", "shuffle", "sequential"]
Schedule = Literal["constant", "linear", "cosine"]
LayoutChoice = Literal["auto", "padded", "shared", "packed"]


def _say_what_never_clips(value: object, check: Callable[[object], object]) -> object:
    """Answer those who write 0, as for transformers, or infinity to switch clipping off."""
    try:
        return check(value)
    except ValidationError as error:
        raise ValueError("must be a finite number above 0; 1e9 in effect never clips") from error


GradNorm = Annotated[float, Field(gt=0), WrapValidator(_say_what_never_clips)]
"""The norm that gradients are clipped to. It cannot be off, so every step's gradient is checked."""

_SCHEDULES: dict[tuple[Schedule, bool], str] = {
    ("constant", False): "constant",
    ("constant", True): "constant_with_warmup",
    ("linear", False): "linear",
    ("linear", True): "linear",
    ("cosine", False): "cosine",
    ("cosine", True): "cosine",
}


class TrainConfig(BaseModel):
    """Choose optimizer, schedule, batches, checkpoints and stopping rules."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: float = Field(default=5e-5, gt=0, description="peak learning rate of AdamW")
    lr_scheduler_type: Schedule = Field(default="constant", description="shape after the warm-up")
    warmup_steps: float = Field(
        default=0, ge=0, description="steps of linear warm-up; below 1, the share of all steps"
    )
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled weight decay")
    max_grad_norm: GradNorm = Field(
        default=1.0, description="gradient norm to clip to; 1e9 never clips"
    )
    num_train_epochs: float = Field(default=1, gt=0, description="passes over the trees")
    max_steps: int | None = Field(
        default=None, gt=0, description="optimizer steps; overrides the epochs"
    )
    per_device_train_batch_size: int = Field(
        default=8, gt=0, description="trees per device and micro step"
    )
    gradient_accumulation_steps: int = Field(
        default=1, gt=0, description="micro steps per optimizer step"
    )
    micro_tokens: int | None = Field(
        default=None,
        gt=0,
        description="tokens in memory at once; changes no gradient; null: by device and memory",
    )
    layout: LayoutChoice = Field(
        default="auto",
        description="how trees become rows; auto: packed with FlexAttention, else shared; padded "
        "where a model takes no tree mask",
    )
    order: Order = Field(default="length", description="length | shuffle | sequential")
    gradient_checkpointing: bool | None = Field(
        default=None,
        description="recompute activations to save memory; null: on a GPU where they would not fit",
    )
    save_steps: int = Field(default=50, gt=0, description="optimizer steps between checkpoints")
    keep_checkpoints: int = Field(
        default=2, gt=0, description="checkpoints to keep; the newest ones"
    )
    eval_steps: int | None = Field(
        default=None, gt=0, description="steps between held-out evaluations"
    )
    stop_margin: float | None = Field(
        default=None,
        gt=0,
        description="stop when the mean log-ratio margin of 8 steps exceeds it, in nats",
    )
    overoptimisation_steps: int | None = Field(
        default=None,
        gt=0,
        description="steps between looks at greedy replies to held-out prompts; stop once they "
        "show over-optimisation",
    )
    seed: Seed = Field(default=0, description="order of the trees and dropout")

    def trees_per_step(self, n_processes: int = 1) -> int:
        """Count the trees of one optimizer batch."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * n_processes


class AlignConfig(BaseModel):
    """Choose the objective and how to optimise it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: ObjectiveConfig = Field(default=DPOConfig(), description="what to minimise")
    train: TrainConfig = Field(default=TrainConfig(), description="how to minimise it")


def training_arguments(config: TrainConfig, output: Path, *, use_cpu: bool) -> "TrainingArguments":
    """Translate into TrainingArguments: every step logged to us alone, no tracker, AdamW."""
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(output),
        learning_rate=config.learning_rate,
        lr_scheduler_type=_SCHEDULES[config.lr_scheduler_type, config.warmup_steps > 0],
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        num_train_epochs=config.num_train_epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=config.per_device_train_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=None,  # checkpoints.py keeps the newest intact ones
        eval_strategy="steps" if config.eval_steps else "no",
        eval_steps=config.eval_steps,
        logging_steps=1,
        logging_nan_inf_filter=False,
        seed=config.seed,
        activation_checkpointing=config.gradient_checkpointing is True,
        use_cpu=use_cpu,
        optim="adamw_torch",
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        log_level="error",
    )
