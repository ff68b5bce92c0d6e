"""A tiny policy over 24 tokens, its prompts, and what is good: learned within seconds."""

import torch
from peft import PeftModel
from trillium.generation import Completion, SamplingConfig
from trillium.generation.in_process import TransformersGenerator
from trillium.policies.adapters import add_adapter
from trillium.policies.config import LoraSettings
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium.training.round_rows import Prompt
from trillium.trees import TokenPath, TokenTree

N_TOKENS = 24
END = 2
PROMPTS = tuple(Prompt(str(n), (4 + n, 5 + n, 12)) for n in range(8))


def make_small_policy(*, dropout: float = 0.0, sharpness: float = 1.0) -> PeftModel:
    """Build a policy whose adapter has no effect yet; `sharpness` scales its logits."""
    base = tiny_policy(vocab_size=N_TOKENS)
    with torch.no_grad():
        base.model.norm.weight.mul_(sharpness)
    lora = LoraSettings(r=4, alpha=8, dropout=dropout)
    return add_adapter(base, lora, base_name="tiny", seed=0)


def make_generator(model: PeftModel) -> TransformersGenerator:
    return TransformersGenerator(model, tiny_tokenizer(), max_rows=64)


def write(model: PeftModel, n_samples: int, n_tokens: int, seed: int) -> list[list[Completion]]:
    """Return fresh samples of the policy for every prompt."""
    return make_generator(model).generate(
        [prompt.ids for prompt in PROMPTS],
        SamplingConfig(n_samples=n_samples, temperature=1.0, top_p=1.0, max_new_tokens=n_tokens),
        seed=seed,
    )


def make_pair(id: str, prompt: Prompt, chosen: tuple[int, ...], rejected: tuple[int, ...]):
    """Return a pair of one prompt, which is not scored."""
    n = len(prompt.ids)
    paths = [
        TokenPath(prompt.ids + reply, (False,) * n + (True,) * len(reply))
        for reply in (chosen, rejected)
    ]
    return TokenTree.from_paths(id, paths)


def count_odd(prompt: Prompt, completion: Completion) -> float:
    """Count the odd tokens; the end of the text is even."""
    return float(sum(token % 2 for token in completion.ids))
