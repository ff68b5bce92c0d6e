"""Follow-up likelihood: a response is good when a satisfied user's next words are likely.

    reward(x, y) = mean over positive f of mean_t log p(f_t | x, y, f_<t)  -  that of negative f

(Repository e0397123/FLR.) The released code averages logits at the first position only; this is the
mean log-probability of all tokens of the follow-up, as a user's turn. A response is one tree: the
conversation is computed once for all follow-ups.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from transformers import PreTrainedTokenizerBase

from trillium.errors import DataError
from trillium.fields import Fields, Message, Text
from trillium.layouts import collate
from trillium.policies.load import Policy
from trillium.records import RANKING_LABELS, RankingRow
from trillium.scoring.layout import choose_layout, evaluating
from trillium.scoring.scores import score
from trillium.trees import TokenPath, TokenTree

POSITIVE = (
    "You understood exactly what I meant.",
    "That answers my question.",
    "That is right, thank you.",
    "I checked it and it is correct.",
    "This was a pleasure to read.",
    "I learned something new from that.",
    "You did all that I asked for.",
    "Great, now tell me more about it.",
)
NEGATIVE = (
    "You did not understand what I meant.",
    "That has nothing to do with my question.",
    "That is wrong.",
    "I checked it and it is not correct.",
    "This was tedious to read.",
    "I learned nothing from that.",
    "You ignored part of what I asked for.",
    "That is no use to me, try again.",
)


@dataclass(frozen=True, kw_only=True)
class CompletionsRow(RankingRow):
    """Hold several responses to one prompt, ranked so far or not; unranked ones start equal."""

    needs: ClassVar[tuple[str, ...]] = ("prompt", "completions")

    @classmethod
    def from_record(cls, fields: Fields) -> RankingRow:
        """Read prompt and completions."""
        if not any(fields.has(name) for name in RANKING_LABELS):
            given = fields.record.get("completions")
            n_responses = len(given) if isinstance(given, list) else 0
            equal = {**fields.record, "rewards": [0.0] * n_responses}
            fields = replace(fields, record=equal)
        return super().from_record(fields)


def followup_tree(
    tokenizer: PreTrainedTokenizerBase, prompt: Text, response: Text, followups: Sequence[str]
) -> TokenTree:
    """Return the conversation with one leaf per follow-up; only its own tokens are scored.

    Raises DataError when the tokenizer has no chat template.
    """
    if tokenizer.chat_template is None:
        raise DataError(
            "follow-ups: the tokenizer has no chat template (needs turns of a user); choose a chat "
            "model"
        )
    turns = [*_turns(prompt, "user"), *_turns(response, "assistant")]
    paths = [_path(tokenizer, turns, followup) for followup in followups]
    return TokenTree.from_paths("followups", paths)


def followup_reward(
    policy: Policy,
    prompt: Text,
    response: Text,
    *,
    positive: Sequence[str] = POSITIVE,
    negative: Sequence[str] = NEGATIVE,
) -> float:
    """Return the reward of a response, in nats per token; higher is better."""
    tree = followup_tree(policy.tokenizer, prompt, response, [*positive, *negative])
    pad = policy.tokenizer.pad_token_id or 0
    layout = choose_layout(policy.model, "shared").layout
    with torch.no_grad(), evaluating(policy.model):
        batch = collate([tree], layout=layout, pad_id=pad).to(policy.model.device)
        found = score(policy.model, batch)
    means = found.logps / found.lengths
    return float(means[: len(positive)].mean() - means[len(positive) :].mean())


def rank_by_followups(row: RankingRow, policy: Policy) -> list[float]:
    """Return the reward of every completion of a row."""
    return [followup_reward(policy, row.prompt, completion) for completion in row.completions]


def _path(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], followup: str
) -> TokenPath:
    turn = {"role": "user", "content": followup}
    text = str(tokenizer.apply_chat_template([*turns, turn], tokenize=False))
    start = text.rindex(followup)
    end = start + len(followup)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoded["offset_mapping"]
    scored = tuple(low < end and high > start for low, high in offsets)
    return TokenPath(tuple(encoded["input_ids"]), scored)


def _turns(text: Text, role: str) -> list[dict[str, str]]:
    messages = [Message(role, text)] if isinstance(text, str) else list(text)
    return [{"role": message.role, "content": message.text} for message in messages]
