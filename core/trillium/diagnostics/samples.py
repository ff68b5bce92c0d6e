"""The policy's own samples: drawn from prompts of the data, and scored as they were written.

Tokens in, tokens out: a tree's prompt is what stands before its first scored token, and a sample
becomes a tree of one path. No tokenizer is needed, so that a run can look at itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor

from trillium.layouts import collate
from trillium.scoring.head import TopTokens
from trillium.scoring.layout import evaluating
from trillium.scoring.scores import score
from trillium.trees import TokenPath, TokenTree

_ROWS = 16


@dataclass(frozen=True)
class OwnSample:
    """Hold a sampled reply: its tokens, its log-probability in nats and the likeliest tokens.

    `top_logps` has the log-probabilities of the likeliest tokens at each step, best first.
    """

    ids: tuple[int, ...]
    logp: float
    top_logps: Float[Tensor, "token top"]


def prompts_of(trees: Sequence[TokenTree], n_prompts: int) -> list[tuple[int, ...]]:
    """Return the first `n_prompts` different prompts: what precedes each first scored token."""
    prompts: dict[tuple[int, ...], None] = {}
    for tree in trees:
        path = tree.path(0)
        prompts[path.ids[: path.scored.index(True)]] = None
        if len(prompts) == n_prompts:
            break
    return list(prompts)


@torch.no_grad()
def draw(
    policy: PeftModel,
    prompts: Sequence[tuple[int, ...]],
    *,
    max_new_tokens: int,
    seed: int | None,
) -> list[tuple[int, ...]]:
    """Return one reply per prompt: greedy for seed None, else at temperature 1 over all tokens.

    The stop token belongs to a reply. The global random state is left as it was.
    """
    pad = policy.config.pad_token_id
    stops = _stops(policy)
    pad = pad if isinstance(pad, int) else (stops[0] if stops else 0)
    replies: list[tuple[int, ...]] = []
    with torch.random.fork_rng(), evaluating(policy):
        if seed is not None:
            torch.manual_seed(seed)
        for start in range(0, len(prompts), _ROWS):
            part = prompts[start : start + _ROWS]
            width = max(map(len, part))
            ids = torch.tensor([[pad] * (width - len(one)) + list(one) for one in part])
            mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in part])
            found = policy.generate(
                input_ids=ids.to(policy.device),
                attention_mask=mask.to(policy.device),
                max_new_tokens=max_new_tokens,
                do_sample=seed is not None,
                temperature=1.0 if seed is not None else None,
                top_k=0 if seed is not None else None,
                top_p=1.0 if seed is not None else None,
                pad_token_id=pad,
                eos_token_id=stops or None,
                use_cache=True,
            )
            replies += [_cut(row, stops) for row in found[:, width:].tolist()]
    return replies


@torch.no_grad()
def score_samples(
    policy: PeftModel, prompts: Sequence[tuple[int, ...]], replies: Sequence[tuple[int, ...]]
) -> list[OwnSample]:
    """Return each reply with its log-probability under the model as it stands, adapters and all."""
    device = next(policy.parameters()).device
    samples = []
    with evaluating(policy):
        for index, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
            scored = (False,) * len(prompt) + (True,) * len(reply)
            tree = TokenTree.from_paths(str(index), [TokenPath(prompt + reply, scored)])
            batch = collate([tree], layout="padded", pad_id=0).to(device)
            found = score(policy, batch, statistics=frozenset({"logp", "top_k"}))
            assert isinstance(found.top, TopTokens)
            samples.append(OwnSample(reply, float(found.logps[0]), found.top.logps.cpu()))
    return samples


def _stops(policy: PeftModel) -> list[int]:
    config = policy.generation_config
    stop = config.eos_token_id if config is not None else None
    return stop if isinstance(stop, list) else [] if stop is None else [stop]


def _cut(row: Sequence[int], stops: Sequence[int]) -> tuple[int, ...]:
    """Return a reply up to its stop token, which it keeps; padding follows there."""
    for place, token in enumerate(row):
        if token in stops:
            return tuple(row[: place + 1])
    return tuple(row)
