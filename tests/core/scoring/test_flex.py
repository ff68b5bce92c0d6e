import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedConfig
from trillium.errors import BackendError
from trillium.layouts import collate
from trillium.policies.tiny import tiny_policy
from trillium.scoring import flex
from trillium.scoring.layout import can_take_tree_mask, choose_layout
from trillium.scoring.scores import score
from trillium.tree_batch import TreeBatch
from trillium.trees import TokenPath, TokenTree

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device is visible")
    return str(request.param)


def draw_trees(seed: int, n_trees: int, longest: int) -> list[TokenTree]:
    """Draw trees of two to four paths; some completions begin alike, so that nodes nest."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    trees = []
    for index in range(n_trees):
        prompt = [draw(4, 200) for _ in range(draw(1, longest))]
        start = [draw(4, 200) for _ in range(draw(1, longest))]
        paths = []
        for number in range(draw(2, 5)):
            own = [draw(4, 200) for _ in range(draw(1, longest))]
            ids = prompt + (start if number % 2 else []) + own
            scored = [False] * len(prompt) + [True] * (len(ids) - len(prompt))
            paths.append(TokenPath(tuple(ids), tuple(scored)))
        trees.append(TokenTree.from_paths(str(index), paths))
    return trees


def pack(trees: list[TokenTree], row_tokens: int) -> TreeBatch:
    return collate(trees, layout="packed", pad_id=3, row_tokens=row_tokens)


def flexible(device: str, config: PreTrainedConfig | None = None) -> nn.Module:
    """Return a random model that computes tree masks by FlexAttention."""
    if config is None:
        model: nn.Module = tiny_policy()
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config).eval()
    model.set_attn_implementation(flex.register_attention())
    return nn.Module.to(model, device)


@pytest.mark.property
@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("seed", range(3))
def test_blocks_hold_exactly_the_pairs_of_the_dense_mask(seed: int, window: int | None) -> None:
    batch = flex.fill_blocks(pack(draw_trees(seed, 3, 700), 7000))
    dense = batch.attention_mask(window=window)
    assert dense is not None
    mask = flex.block_mask(batch, window=window)
    n_rows, _, length, _ = dense.shape
    tiles = dense.view(n_rows, 1, length // flex.BLOCK, flex.BLOCK, -1, flex.BLOCK)
    assert torch.equal(mask.to_dense().bool(), tiles.any(-1).any(3))
    row, query, key = (torch.arange(n) for n in (n_rows, length, length))
    pairs = mask.mask_mod(row[:, None, None], row[:1], query[None, :, None], key[None, None])
    assert torch.equal(pairs, dense[:, 0])
    # A full block is one whose pairs need not be asked about one by one.
    full = torch.zeros_like(tiles.any(-1).any(3))
    assert mask.full_kv_num_blocks is not None
    assert mask.full_kv_indices is not None
    for at, count in enumerate(mask.full_kv_num_blocks.flatten().tolist()):
        place = divmod(at, full.shape[2])
        full[place[0], 0, place[1], mask.full_kv_indices[place[0], 0, place[1], :count]] = True
    assert torch.equal(full, tiles.all(-1).all(3))
    assert full.any() == (window is None)


def test_packed_flex_rows_score_and_learn_as_padded_sdpa_rows_do(device: str) -> None:
    trees = draw_trees(3, 6, 70)
    batches = [collate(trees, layout="padded", pad_id=3), pack(trees, 1000)]
    found = []
    for batch, model in zip(batches, (tiny_policy().to(device), flexible(device)), strict=True):
        scores = score(model, batch.to(device))
        (scores.logps * torch.linspace(-1, 1, len(scores.logps), device=device)).sum().backward()
        gradients = [p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]
        found.append((scores.logps.detach().cpu(), torch.cat(gradients)))
    torch.testing.assert_close(found[0][0], found[1][0], atol=2e-4, rtol=1e-5)
    gap = (found[0][1] - found[1][1]).norm() / found[0][1].norm()
    assert gap < 1e-4


def test_windows_and_groups_that_are_no_power_of_two_are_taken(device: str) -> None:
    """SmolLM2 has three query heads per key head; Mistral looks back through a window."""
    size = {"vocab_size": 260, "hidden_size": 48, "intermediate_size": 64, "pad_token_id": 3}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2}
    for config in (LlamaConfig(**size, **heads), MistralConfig(**size, **heads, sliding_window=7)):
        assert can_take_tree_mask(flexible(device, config)) is None


def test_a_model_with_flex_attention_packs_its_rows_by_default() -> None:
    assert choose_layout(flexible("cpu"), "auto").layout == "packed"
    assert choose_layout(tiny_policy(), "auto").layout == "shared"


def test_one_model_generates_with_sdpa_and_is_scored_with_flex() -> None:
    ids = torch.arange(4, 40)[None]
    options = {"max_new_tokens": 12, "do_sample": False}
    expected = tiny_policy().generate(ids, **options)
    assert torch.equal(flexible("cpu").generate(ids, **options), expected)


def test_scores_that_a_kernel_cannot_change_are_refused() -> None:
    batch = flex.fill_blocks(pack(draw_trees(0, 2, 20), 300))
    states = torch.zeros(1, 4, batch.input_ids.shape[1], 8)
    attend = flexible("cpu").model.layers[0].self_attn
    with pytest.raises(BackendError, match="passes softcap"):
        flex._attend(attend, states, states, states, flex.block_mask(batch), softcap=30.0)
