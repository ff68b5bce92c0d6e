import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from torch import Tensor
from trillium.errors import BackendError, ConfigError
from trillium.layouts import collate
from trillium.policies.tiny import tiny_policy
from trillium.scoring.scores import pad_paths, score, scored_places, sum_paths
from trillium.trees import TokenPath, TokenTree

PROMPT = (10, 11, 12)


def pair(name: str, chosen: tuple[int, ...], rejected: tuple[int, ...]) -> TokenTree:
    return TokenTree.from_paths(
        name,
        [
            TokenPath(PROMPT + ids, (False,) * len(PROMPT) + (True,) * len(ids))
            for ids in (chosen, rejected)
        ],
    )


TREES = [pair("first", (20, 21, 22), (20, 30)), pair("second", (40,), (50, 51, 52, 53))]


def spell_out(model: torch.nn.Module, ids: tuple[int, ...], scored: tuple[bool, ...]) -> Tensor:
    """Sum log-probabilities of one sequence from the model's own logits, one token at a time."""
    logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    log_p = torch.log_softmax(logits, -1)
    return sum(
        (log_p[i - 1, token] for i, token in enumerate(ids) if scored[i]), torch.zeros(()).double()
    )


@pytest.mark.parametrize("layout", ["padded", "shared", "packed"])
def test_logps_are_the_models_own_log_probabilities(layout: str) -> None:
    model = tiny_policy()
    batch = collate(TREES, layout=layout, pad_id=3, row_tokens=40)
    scores = score(model, batch)
    paths = [tree.path(index) for tree in TREES for index in range(2)]
    expected = torch.stack([spell_out(model, path.ids, path.scored) for path in paths])
    torch.testing.assert_close(scores.logps.double(), expected, atol=1e-5, rtol=0)
    assert scores.lengths.tolist() == [3, 2, 1, 4]
    assert set(scores.token) == {"logp"}
    assert scores.logps.dtype == torch.float32


def test_masked_tokens_are_attended_but_not_scored() -> None:
    """T7: the loss mask is no attention mask; a hole in it changes the sum, not the context."""
    model = tiny_policy()
    ids = (10, 11, 20, 21, 22, 23)
    holes = (False, False, True, False, False, True)
    batch = collate([TokenTree.from_paths("t", [TokenPath(ids, holes)])], layout="shared", pad_id=3)
    scores = score(model, batch)
    torch.testing.assert_close(scores.logps[0].double(), spell_out(model, ids, holes))
    changed = (10, 11, 20, 99, 22, 23)
    other = collate(
        [TokenTree.from_paths("t", [TokenPath(changed, holes)])], layout="shared", pad_id=3
    )
    assert (score(model, other).logps - scores.logps).abs().item() > 1e-3


def test_padding_token_inside_a_response_is_scored_like_any_other() -> None:
    """T7: with pad equal to eos, the end of a response keeps its log-probability and gradient."""
    model = tiny_policy()
    tree = pair("t", (20, 21, 3), (30, 3))
    values = [
        score(model, collate([tree], layout=layout, pad_id=3)).logps
        for layout in ("padded", "shared")
    ]
    expected = spell_out(model, tree.path(0).ids, tree.path(0).scored)
    torch.testing.assert_close(values[0][0].double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(values[0], values[1], atol=1e-5, rtol=0)


def test_adapters_are_seen_and_get_the_same_gradients_as_full_logits() -> None:
    policy = get_peft_model(
        tiny_policy(), LoraConfig(r=4, target_modules="all-linear", task_type=TaskType.CAUSAL_LM)
    )
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    batch = collate(TREES, layout="shared", pad_id=3)
    trained = [p for p in policy.parameters() if p.requires_grad]
    logps = score(policy, batch).logps
    with policy.disable_adapter(), torch.no_grad():
        base = score(policy, batch).logps
    assert (logps - base).abs().min() > 0.1
    paths = [tree.path(index) for tree in TREES for index in range(2)]
    expected = torch.stack([spell_out(policy, path.ids, path.scored) for path in paths])
    ours = torch.autograd.grad(logps.sum(), trained)
    theirs = torch.autograd.grad(expected.sum(), trained)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_long_sums_keep_float32_accuracy_under_bfloat16() -> None:
    """T11: four thousand bfloat16 values add up to what float64 says, to one float32 rounding."""
    ids = (5,) * 4001
    tree = TokenTree.from_paths("long", [TokenPath(ids, (False, *([True] * 4000)))])
    batch = collate([tree], layout="shared", pad_id=3)
    values = torch.randn(4000, generator=torch.Generator().manual_seed(0)).bfloat16() - 3
    total = sum_paths(values, batch)
    assert total.dtype == torch.float32
    assert float(total[0]) == float(values.double().sum().float())


def test_bfloat16_policy_gives_float32_scores_near_the_exact_ones() -> None:
    batch = collate(TREES, layout="shared", pad_id=3)
    exact = score(tiny_policy(), batch).logps
    rounded = score(tiny_policy(dtype=torch.bfloat16), batch).logps
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.2


def test_not_finite_scores_name_the_tree() -> None:
    """T11: only the second tree contains token 40, whose embedding is broken."""
    model = tiny_policy()
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        model.model.embed_tokens.weight[51] = float("nan")
    with pytest.raises(BackendError, match=r"1 of 4 .* in trees second \(expected finite"):
        score(model, collate(TREES, layout="padded", pad_id=3))


def test_same_batch_gives_the_same_bits() -> None:
    model = tiny_policy()
    batch = collate(TREES, layout="packed", pad_id=3, row_tokens=40)
    assert torch.equal(score(model, batch).logps, score(model, batch).logps)


def test_prompt_tuning_is_refused() -> None:
    model = get_peft_model(
        tiny_policy(), PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=2)
    )
    with pytest.raises(ConfigError, match="uses prompt or prefix tuning"):
        score(model, collate(TREES, layout="padded", pad_id=3))


def test_divergence_from_an_adapted_head_is_refused() -> None:
    base = tiny_policy()
    base.config.tie_word_embeddings = False
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["lm_head"]))
    batch = collate(TREES, layout="padded", pad_id=3)
    with pytest.raises(ConfigError, match="leave lm_head out"):
        score(model, batch, statistics=frozenset({"kl_to_reference"}))


@pytest.mark.parametrize("layout", ["padded", "shared", "packed"])
def test_padded_paths_hold_each_token_in_turn(layout: str) -> None:
    batch = collate(TREES, layout=layout, pad_id=3, row_tokens=40)
    expected = [[20, 21, 22, 0], [20, 30, 0, 0], [40, 0, 0, 0], [50, 51, 52, 53]]
    assert pad_paths(batch.target.float(), batch).tolist() == expected
    assert scored_places(batch).tolist() == [[value > 0 for value in row] for row in expected]


def test_hidden_states_are_kept_only_on_request() -> None:
    batch = collate(TREES, layout="shared", pad_id=3)
    assert score(tiny_policy(), batch).hidden is None
    kept = score(tiny_policy(), batch, keep_hidden=True).hidden
    assert kept is not None
    assert kept.shape == (len(batch.target), 32)
