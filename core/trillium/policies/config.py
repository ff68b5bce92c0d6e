"""Which policy to load: base model, precision, quantisation and adapter."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Quantisation = Literal["none", "nf4"]
Precision = Literal["auto", "bfloat16", "float32"]
Attention = Literal["auto", "sdpa", "flex"]


class LoraSettings(BaseModel):
    """Choose the adapter that is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    r: int = Field(default=16, gt=0, description="rank of the update of each layer")
    alpha: int = Field(
        default=32, gt=0, description="scale of the update: alpha / r, rslora alpha / sqrt(r)"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout on the adapter's input")
    rslora: bool = Field(default=False, description="scale by alpha / sqrt(r)")
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        default="all-linear",
        description="layers to adapt: all-linear (without the head), or their names",
    )


class PolicyConfig(BaseModel):
    """Choose the model to align."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = Field(
        default="smollm2-135m-instruct",
        description="asset name, folder, or hub id of the base model",
    )
    dtype: Precision = Field(
        default="auto",
        description="of the base weights; auto = bfloat16 where the processor computes in it",
    )
    quantisation: Quantisation = Field(
        default="none", description="none | nf4 (4 bits, double quantised)"
    )
    attention: Attention = Field(
        default="auto", description="sdpa | flex (tree masks by block; auto on a GPU)"
    )
    adapter: Path | None = Field(
        default=None, description="adapter folder to start from; null = a new one"
    )
    lora: LoraSettings = Field(
        default=LoraSettings(), description="the new adapter; unused with `adapter`"
    )
