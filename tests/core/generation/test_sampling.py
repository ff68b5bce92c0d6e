import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from trillium.generation.sampling import choose_tokens, draw_tokens, token_logps


def random_logits(n_rows: int, n_vocab: int, *, spread: float = 2.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_rows, n_vocab, generator=torch.Generator().manual_seed(seed)) * spread


def drawn_shares(logits: torch.Tensor, *, temperature: float, top_p: float, top_k: int):
    """Return the share of each token over a fine even grid of uniforms: its exact probability."""
    n_grid = 20_000
    uniforms = (torch.arange(n_grid, dtype=torch.float64) + 0.5) / n_grid
    tokens = choose_tokens(
        logits.expand(n_grid, -1), uniforms, temperature=temperature, top_p=top_p, top_k=top_k
    )
    return torch.bincount(tokens, minlength=logits.shape[-1]) / n_grid


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"),
    [(1.0, 1.0, 0), (0.7, 1.0, 0), (0.8, 0.95, 0), (1.5, 0.3, 0), (1.0, 1.0, 5), (0.9, 0.8, 7)],
)
def test_tokens_are_drawn_with_the_probabilities_of_transformers(temperature, top_p, top_k):
    logits = random_logits(1, 40)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    warpers.append(TopPLogitsWarper(top_p))
    expected = warpers(torch.zeros(1, 1, dtype=torch.long), logits).softmax(-1)[0]
    shares = drawn_shares(logits, temperature=temperature, top_p=top_p, top_k=top_k)
    torch.testing.assert_close(shares, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("spread", [0.01, 1.0])
def test_a_nucleus_wider_than_the_first_candidates_is_still_exact(spread):
    logits = random_logits(3, 5000, spread=spread)
    uniforms = torch.tensor([0.0, 0.5, 0.999999], dtype=torch.float64)
    tokens = choose_tokens(logits, uniforms, temperature=1.0, top_p=0.95)
    for row in range(3):
        values, ids = logits[row].softmax(-1).sort(descending=True)
        mass = values.double().cumsum(0)
        n_kept = int((mass < 0.95).sum()) + 1
        assert n_kept > 128
        place = int((mass[:n_kept] <= uniforms[row] * mass[n_kept - 1]).sum())
        assert tokens[row] == ids[place]


def test_a_row_draws_the_same_token_whoever_its_neighbours_are():
    logits = torch.cat([random_logits(4, 3000, spread=0.1), random_logits(4, 3000, spread=9.0)])
    uniforms = torch.rand(8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    together = choose_tokens(logits, uniforms, temperature=0.8, top_p=0.95)
    for row in range(8):
        alone = choose_tokens(
            logits[row : row + 1], uniforms[row : row + 1], temperature=0.8, top_p=0.95
        )
        assert alone.item() == together[row].item()


@pytest.mark.property
@given(
    seed=st.integers(0, 1000),
    uniform=st.sampled_from([0.0, 1e-300, 0.5, 1 - 2**-53]),
    top_p=st.sampled_from([1e-9, 0.5, 0.95, 1.0]),
    top_k=st.sampled_from([0, 1, 300]),
    shift=st.sampled_from([-1e4, 0.0, 1e4]),
)
def test_only_possible_tokens_are_drawn_at_the_extremes(seed, uniform, top_p, top_k, shift):
    logits = random_logits(1, 200, seed=seed) + shift
    logits[0, ::3] = -torch.inf
    (token,) = choose_tokens(
        logits,
        torch.tensor([uniform], dtype=torch.float64),
        temperature=0.8,
        top_p=top_p,
        top_k=top_k,
    ).tolist()
    assert token % 3 != 0


def test_temperature_zero_takes_the_likeliest_token():
    logits = random_logits(5, 100)
    uniforms = torch.rand(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens = choose_tokens(logits, uniforms, temperature=0, top_p=0.9)
    assert tokens.tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [1e-320, 1e-45, 1e-39, 1e-31, 1e-29])
@pytest.mark.parametrize(("top_p", "top_k"), [(1.0, 0), (0.9, 0), (1.0, 7)])
def test_a_temperature_next_to_zero_takes_the_likeliest_token(temperature, top_p, top_k):
    logits = random_logits(5, 300) * 10
    uniforms = torch.rand(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    settings = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    expected = logits.argmax(-1).tolist()
    assert choose_tokens(logits, uniforms, **settings).tolist() == expected
    assert draw_tokens(logits, uniforms, **settings).tokens == expected


def test_token_logps_are_those_of_the_untempered_softmax():
    logits = random_logits(3, 50)
    tokens = torch.tensor([1, 7, 49])
    expected = logits.log_softmax(-1)[torch.arange(3), tokens]
    torch.testing.assert_close(token_logps(logits, tokens), expected)


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"), [(0, 0.9, 0), (0.8, 0.95, 0), (1.0, 1.0, 0), (0.9, 0.8, 7)]
)
def test_drawn_tokens_are_those_chosen_with_their_log_probabilities(temperature, top_p, top_k):
    """Some rows have a nucleus wider than the first candidates, others do not."""
    logits = torch.cat([random_logits(4, 3000, spread=0.1), random_logits(4, 3000, spread=9.0)])
    uniforms = torch.rand(8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    settings = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    drawn = draw_tokens(logits, uniforms, **settings)
    chosen = choose_tokens(logits, uniforms, **settings)
    assert drawn.tokens == chosen.tolist()
    assert drawn.logps == pytest.approx(token_logps(logits, chosen).tolist())


@pytest.mark.parametrize(("top_p", "top_k"), [(0.9, 0), (1.0, 0), (0.9, 7)])
def test_logits_that_are_not_numbers_show_in_the_log_probability_of_their_row_only(top_p, top_k):
    logits = random_logits(2, 300)
    logits[0, 5] = torch.nan
    uniforms = torch.tensor([0.5, 0.5], dtype=torch.float64)
    drawn = draw_tokens(logits, uniforms, temperature=0.8, top_p=top_p, top_k=top_k)
    assert [math.isnan(logp) for logp in drawn.logps] == [True, False]
