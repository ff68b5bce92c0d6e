"""The value of a state: what the trained head reads off the policy's own hidden state.

A state is a prefix of tokens, and its value the expected reward of what the policy makes of it. The
head was trained on states before a token of the policy: after the prompt, after tool output, and
between its own tokens. It is saved beside the adapter, as `heads.safetensors`.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from trillium.errors import ConfigError
from trillium.policies.adapters import POLICY_ADAPTER, using_adapter
from trillium.scoring.forward import open_model
from trillium.training.heads import HEADS_FILE, LinearHead, load_heads

from trillium_math.agent.partial import Partial
from trillium_math.agent.trajectory import Trajectory

# Tokens of prefixes that are computed together, by device; longer prefixes go alone.
_MOST_TOKENS = {"cpu": 4096, "cuda": 32768}


class Critic:
    """Judge prefixes with the policy's adapter and the head that was trained with it."""

    def __init__(self, model: PeftModel, folder: Path) -> None:
        """Load the head of `folder`; the adapter of the same folder must be on the model.

        Raises ConfigError when the folder has no value head.
        """
        check_head(folder)
        self._model = model
        width = getattr(open_model(model).config, "hidden_size", None)
        assert isinstance(width, int)
        self._head = LinearHead(width, 1)
        load_heads(nn.ModuleDict({"value": self._head}), folder)
        self._head.to(next(model.parameters()).device)

    @torch.inference_mode()
    def values(self, prefixes: Sequence[Sequence[int]]) -> list[float]:
        """Return the value of the state after each prefix, in rewards."""
        found = [0.0] * len(prefixes)
        was_training = self._model.training
        self._model.eval()
        try:
            with using_adapter(self._model, POLICY_ADAPTER):
                device = next(self._model.parameters()).device.type
                limit = _MOST_TOKENS.get(device, _MOST_TOKENS["cpu"])
                for batch in _batches(prefixes, limit):
                    ids = [prefixes[index] for index in batch]
                    for index, value in zip(batch, self._read(ids), strict=True):
                        found[index] = value
        finally:
            self._model.train(was_training)
        return found

    def _read(self, prefixes: Sequence[Sequence[int]]) -> list[float]:
        width = max(map(len, prefixes))
        device = next(self._model.parameters()).device
        # Right padding comes after every real token, so a causal model needs no mask.
        padded = [[*prefix, *[0] * (width - len(prefix))] for prefix in prefixes]
        ids = torch.tensor(padded, device=device)
        hidden = open_model(self._model).decoder(input_ids=ids, use_cache=False)[0]
        last = torch.tensor([len(prefix) - 1 for prefix in prefixes], device=device)
        states = hidden[torch.arange(len(prefixes), device=device), last]
        values: list[float] = self._head(states)[:, 0].tolist()
        return values


def state_of(one: Partial | Trajectory) -> tuple[int, ...]:
    """Return the prefix by which a trajectory is judged.

    One that goes on is judged by all of it. One that has ended is judged by the state before its
    last token: after that token there is nothing to expect, and no such state was trained.
    """
    if isinstance(one, Partial) and one.outcome is None:
        return tuple(one.ids)
    ids = one.ids if isinstance(one, Partial) else one.token_ids
    end = one.spans[-1][1] - 1 if one.spans else len(ids)
    return tuple(ids[:end])


def check_head(folder: Path | None) -> None:
    """Raise ConfigError when there is no value head beside an adapter."""
    if folder is None or not (folder / HEADS_FILE).is_file():
        raise ConfigError(
            f"policy.adapter={folder}: has no value function (a search by value reads "
            f"{HEADS_FILE} beside the adapter, which method oreo writes); give the adapter of a "
            "run with method.name=oreo, or set search.name=sample"
        )


def _batches(prefixes: Sequence[Sequence[int]], most_tokens: int) -> list[list[int]]:
    """Group prefixes of similar length, `most_tokens` with padding at a time."""
    order = sorted(range(len(prefixes)), key=lambda index: -len(prefixes[index]))
    batches: list[list[int]] = []
    for index in order:
        if batches and len(prefixes[batches[-1][0]]) * (len(batches[-1]) + 1) <= most_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
