"""Look at a run while it trains, and stop it when it over-optimises.

The looks are kept in the trainer's own record of steps, which checkpoints hold: a resumed run
knows those of before the kill, and decides as an uninterrupted one.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trillium.diagnostics.overoptimisation import (
    is_overoptimised,
    top_k_entropy,
    top_k_mass,
)
from trillium.diagnostics.samples import draw, prompts_of, score_samples
from trillium.files import write_atomically
from trillium.trees import TokenTree

ENTROPY, MASS = "own/top10_entropy_bits", "own/top10_mass"
LOOKS = "looks.jsonl"
N_PROMPTS, MAX_NEW_TOKENS = 16, 64


def looks_in(history: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """Return the looks among the rows of a trainer's history, oldest first."""
    return [row for row in history if ENTROPY in row]


def is_past_optimum(history: Sequence[Mapping[str, float]], objective: str) -> bool:
    """Tell whether the looks in a trainer's history show over-optimisation."""
    looks = looks_in(history)
    return is_overoptimised(
        objective, [row[ENTROPY] for row in looks], [row[MASS] for row in looks]
    )


class StopOnOveroptimisation(TrainerCallback):
    """Sample held-out prompts every few steps; end training at the sign of arXiv 2410.11677."""

    def __init__(
        self, policy: nn.Module, held_out: Sequence[TokenTree], *, objective: str, steps: int
    ) -> None:
        """Look at greedy replies to the first held-out prompts every `steps` optimizer steps."""
        assert isinstance(policy, PeftModel)
        self._policy = policy
        self._prompts = prompts_of(held_out, N_PROMPTS)
        self._objective = objective
        self._steps = steps

    def look(self) -> dict[str, float]:
        """Return entropy and mass of the ten likeliest tokens, over the policy's own replies."""
        replies = draw(self._policy, self._prompts, max_new_tokens=MAX_NEW_TOKENS, seed=None)
        samples = score_samples(self._policy, self._prompts, replies)
        top = torch.cat([sample.top_logps for sample in samples])
        return {ENTROPY: top_k_entropy(top), MASS: top_k_mass(top)}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Look at the policy before its first step."""
        if state.global_step == 0:
            self._record(state, Path(str(args.output_dir)))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Look every few steps; checkpoints that are saved at this step hold the look."""
        if state.global_step % self._steps == 0:
            self._record(state, Path(str(args.output_dir)))
            if is_past_optimum(state.log_history, self._objective):
                control.should_training_stop = control.should_save = True

    def _record(self, state: TrainerState, output: Path) -> None:
        state.log_history.append({"step": state.global_step, **self.look()})
        if state.is_world_process_zero:
            lines = [
                json.dumps(look, sort_keys=True) + "\n" for look in looks_in(state.log_history)
            ]
            write_atomically(output / LOOKS, "".join(lines))
