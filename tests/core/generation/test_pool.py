"""Both pools against transformers and against each other."""

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM
from trillium.generation import SamplingConfig
from trillium.generation.in_process import TransformersGenerator
from trillium.generation.pool import SlotPool, WholePool, open_pool, read_prompts
from trillium.policies.tiny import tiny_policy, tiny_tokenizer

PROMPTS = [[10, 20, 30, 40, 50], [60, 70], [80, 90, 100, 110, 120, 130, 140], [150]]


def windowed_policy() -> MistralForCausalLM:
    """Build a random model whose layers look back eight tokens."""
    config = MistralConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
        bos_token_id=None,
        eos_token_id=[2, *range(100, 113)],
        pad_token_id=3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MistralForCausalLM(config).eval()
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.data.normal_(0.0, 0.15)
    return model


def next_logits(model, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0, -1]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_rows_that_enter_leave_and_move_read_their_own_tokens_only(attention):
    """Slots hold what earlier rows left; the cache grows past its first block."""
    model = tiny_policy()
    model.set_attn_implementation(attention)
    pool = SlotPool(model, n_rows=5, max_tokens=300)
    random = torch.Generator().manual_seed(0)
    rows: list[list[int]] = []
    with torch.inference_mode():
        for step in range(150):
            if step % 9 == 0:
                read = read_prompts(model, PROMPTS, pad_id=3)
                sources = [3, 0, 0, 2, 1][: 5 - len(rows)]
                pool.enter(read, sources)
                rows += [list(PROMPTS[source]) for source in sources]
            tokens = torch.randint(4, 260, (len(rows),), generator=random).tolist()
            logits = pool.step(tokens)
            for row, token in zip(rows, tokens, strict=True):
                row.append(token)
            if step % 3 == 0 or step > 140:
                for row, found in zip(rows, logits, strict=True):
                    torch.testing.assert_close(found, next_logits(model, row), atol=1e-4, rtol=0)
            if step % 9 == 7:
                order = [0, len(rows) - 1, 2]
                pool.keep(order)
                rows = [rows[place] for place in order]
    assert len(rows[0]) > 128


def test_a_plain_model_gets_slots_and_one_with_windows_does_not():
    assert isinstance(open_pool(tiny_policy(), n_rows=2, max_tokens=9), SlotPool)
    assert isinstance(open_pool(windowed_policy(), n_rows=2, max_tokens=9), WholePool)


def test_greedy_output_of_a_windowed_model_equals_that_of_transformers():
    model = windowed_policy()
    for max_rows in (3, 64):
        source = TransformersGenerator(model, tiny_tokenizer(), max_rows=max_rows, batch_rows=64)
        generated = source.generate(
            PROMPTS, n_samples=2, temperature=0, top_p=1, max_new_tokens=30, stop=(), seed=0
        )
        for prompt, completions in zip(PROMPTS, generated, strict=True):
            alone = model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=30,
                do_sample=False,
            )
            for one in completions:
                assert list(one.ids) == alone[0, len(prompt) :].tolist()


def test_both_pools_draw_the_same(monkeypatch):
    model = tiny_policy()
    model.generation_config.eos_token_id = [2, *range(100, 113)]
    source = TransformersGenerator(model, tiny_tokenizer())
    (batch,) = source.plan(PROMPTS, n_samples=6, seed=3)
    sampling = SamplingConfig(temperature=1.3, max_new_tokens=40)
    in_slots = source.generate_batch(batch, sampling)
    # A recurrent layer would be marked so.
    monkeypatch.setattr(model.model.norm, "_is_stateful", True, raising=False)
    together = source.generate_batch(batch, sampling)
    ids = [[[one.ids for one in group] for group in groups] for groups in (in_slots, together)]
    assert ids[0] == ids[1]
