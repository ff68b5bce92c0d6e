"""Both pools against transformers and against each other."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Lfm2Config,
    MambaConfig,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedConfig,
    Qwen3NextConfig,
    RwkvConfig,
)
from trillium.errors import BackendError
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


SMALL = {"vocab_size": 260, "hidden_size": 32, "num_hidden_layers": 2, "eos_token_id": 2}
HEADS = {"intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
GATED = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
RECURRENT = {
    "mamba": MambaConfig(**SMALL, state_size=8),
    "lfm2": Lfm2Config(
        **SMALL, **HEADS, layer_types=["conv", "full_attention"], full_attn_idxs=[1]
    ),
    "qwen3_next": Qwen3NextConfig(
        **SMALL, **HEADS, **GATED, head_dim=8, layer_types=["linear_attention", "full_attention"]
    ),
}


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
            PROMPTS,
            SamplingConfig(n_samples=2, temperature=0, top_p=1, max_new_tokens=30),
            seed=0,
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


@pytest.mark.parametrize("config", RECURRENT.values(), ids=RECURRENT)
def test_a_recurrent_model_tells_the_log_probabilities_of_what_it_draws(config: PreTrainedConfig):
    """Rows are padded, copied for their samples, and leave while others go on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.eos_token_id = list(range(2, 20))
    source = TransformersGenerator(model, tiny_tokenizer())
    (batch,) = source.plan(PROMPTS, n_samples=3, seed=0)
    drawn = source.generate_batch(batch, SamplingConfig(temperature=1.0, max_new_tokens=12))
    assert len({len(one.ids) for group in drawn for one in group}) > 2
    for prompt, group in zip(batch.prompts, drawn, strict=True):
        for one in group:
            with torch.inference_mode():
                logits = model(torch.tensor([[*prompt, *one.ids]]), use_cache=False).logits[0]
            logps = torch.log_softmax(logits[len(prompt) - 1 : -1], -1)
            forced = logps[torch.arange(len(one.ids)), torch.tensor(one.ids)].sum().item()
            assert one.logp == pytest.approx(forced, abs=1e-4)


def test_a_model_that_keeps_its_past_in_an_unknown_way_is_refused():
    config = RwkvConfig(**SMALL, attention_hidden_size=32)
    source = TransformersGenerator(AutoModelForCausalLM.from_config(config), tiny_tokenizer())
    (batch,) = source.plan(PROMPTS, n_samples=1, seed=0)
    with pytest.raises(BackendError, match="RwkvForCausalLM: takes neither past_key_values nor"):
        source.generate_batch(batch, SamplingConfig())
