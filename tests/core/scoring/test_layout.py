import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3NextConfig,
)
from trillium.layouts import collate
from trillium.policies.tiny import tiny_policy
from trillium.scoring.layout import can_take_tree_mask, choose_layout, evaluating
from trillium.scoring.scores import score
from trillium.trees import Layout, TokenPath, TokenTree

LAYOUTS: tuple[Layout, ...] = ("padded", "shared", "packed")


def build(config: PreTrainedConfig, attention: str = "eager") -> nn.Module:
    """Build a random model with weights large enough that attention matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.normal_(0.0, 0.15)
    assert isinstance(model, nn.Module)
    return model.eval()


SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {**SMALL, "num_key_value_heads": 2}


def draw_trees(seed: int, n_trees: int = 5, vocab_size: int = 64) -> list[TokenTree]:
    """Draw trees of one to four paths whose completions sometimes share a beginning."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    trees = []
    for index in range(n_trees):
        prompt = [draw(4, vocab_size) for _ in range(draw(1, 10))]
        start = [draw(4, vocab_size) for _ in range(draw(0, 3))]
        paths = []
        for _ in range(draw(1, 5)):
            completion = start + [draw(4, vocab_size) for _ in range(draw(1, 9))]
            mask = [draw(0, 4) > 0 for _ in completion[:-1]] + [True]
            ids = tuple(prompt + completion)
            paths.append(TokenPath(ids, (False,) * len(prompt) + tuple(mask)))
        trees.append(TokenTree.from_paths(f"tree {index}", paths))
    return trees


def assert_layouts_agree(model: nn.Module, trees: list[TokenTree]) -> None:
    """Compare log-probabilities and the gradient of a nonlinear loss with the padded oracle."""
    results = []
    for layout in LAYOUTS:
        batch = collate(trees, layout=layout, pad_id=0, row_tokens=120)
        model.zero_grad()
        scores = score(model, batch)
        torch.sigmoid(scores.logps / scores.lengths).sum().backward()
        gradient = {
            name: parameter.grad.clone()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
        results.append((scores, gradient))
    oracle, expected = results[0]
    for scores, gradient in results[1:]:
        torch.testing.assert_close(scores.logps, oracle.logps, atol=1e-5, rtol=1e-6)
        assert torch.equal(scores.lengths, oracle.lengths)
        assert gradient.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(gradient[name], expected[name], atol=1e-5, rtol=1e-4)


@pytest.mark.property
@pytest.mark.parametrize("seed", range(5))
def test_three_layouts_give_the_same_logps_and_gradients(seed: int) -> None:
    """T25: padded, shared and packed agree to 1e-5 in float32 on random trees."""
    assert_layouts_agree(tiny_policy(vocab_size=64), draw_trees(seed))


@pytest.mark.property
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "config",
    [
        Qwen2Config(**GROUPED),
        Qwen2Config(**GROUPED, use_sliding_window=True, sliding_window=4, max_window_layers=1),
        MistralConfig(**GROUPED, sliding_window=5),
        GPTNeoXConfig(**SMALL, rotary_pct=0.25),
    ],
    ids=["qwen2", "qwen2-window", "mistral-window", "gpt-neox"],
)
def test_families_of_models_agree_in_all_layouts(config: PreTrainedConfig, attention: str) -> None:
    """Windows of 4 and 5 tokens are shorter than the rows, and follow positions, not columns."""
    model = build(config, attention)
    assert choose_layout(model, "auto").layout == "shared"
    assert_layouts_agree(model, draw_trees(7))


@pytest.mark.property
def test_softcapped_model_with_short_windows_agrees_in_all_layouts() -> None:
    config = Gemma2Config(
        **GROUPED,
        head_dim=8,
        sliding_window=4,
        final_logit_softcapping=5.0,
        query_pre_attn_scalar=8,
    )
    model = build(config)
    assert choose_layout(model, "packed").layout == "packed"
    assert_layouts_agree(model, draw_trees(8))


def test_recurrent_model_falls_back_to_padded_and_says_so() -> None:
    model = build(MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4))
    decision = choose_layout(model, "shared")
    assert decision.layout == "padded"
    assert decision.sentence == (
        "layout: padded instead of shared, because its layers of kind linear_attention read tokens "
        "in row order; every path is computed whole"
    )


def test_linear_attention_is_named_as_the_reason() -> None:
    config = Qwen3NextConfig(
        **GROUPED,
        head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
        layer_types=["linear_attention", "full_attention"],
    )
    reason = can_take_tree_mask(build(config))
    assert reason == "its layers of kind linear_attention read tokens in row order"


def test_model_that_numbers_positions_itself_is_refused() -> None:
    model = build(BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4))
    assert can_take_tree_mask(model) == "it numbers positions by column and cannot be given them"


def test_flash_attention_is_refused_with_a_remedy() -> None:
    model = tiny_policy()
    model.config._attn_implementation = "flash_attention_2"
    reason = can_take_tree_mask(model)
    assert reason is not None
    assert reason.endswith("(load the model with attention sdpa)")


def test_model_that_ignores_the_mask_is_caught_by_the_trial() -> None:
    """The configuration declares nothing unusual; only a trial shows it."""
    model = build(LlamaConfig(**GROUPED))
    decoder = model.get_decoder()
    forward = decoder.forward

    def forget_mask(
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        use_cache: bool = False,
    ) -> object:
        return forward(input_ids=input_ids, position_ids=position_ids, use_cache=use_cache)

    decoder.forward = forget_mask
    reason = can_take_tree_mask(model)
    assert reason is not None
    assert reason.startswith("a tree mask changed its hidden states by")


def test_model_that_fails_on_the_mask_gets_padded_rows() -> None:
    model = build(LlamaConfig(**GROUPED))
    decoder = model.get_decoder()
    forward = decoder.forward

    def refuse_mask(
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        use_cache: bool = False,
    ) -> object:
        if attention_mask is not None:
            raise ValueError("two axes, please")
        return forward(input_ids=input_ids, use_cache=use_cache)

    decoder.forward = refuse_mask
    decision = choose_layout(model, "packed")
    assert decision.layout == "padded"
    assert decision.sentence is not None
    assert "a trial with a tree mask failed (ValueError: two axes, please)" in decision.sentence


def test_padded_is_always_granted_without_a_word() -> None:
    decision = choose_layout(tiny_policy(), "padded")
    assert (decision.layout, decision.sentence) == ("padded", None)


def test_evaluating_restores_a_mixed_training_state() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout())
    model[0].training = False
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model] == [False, True]
