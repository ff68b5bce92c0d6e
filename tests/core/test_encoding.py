import pytest
from hypothesis import given
from hypothesis import strategies as st
from trillium.encoding import Encoder, Truncation, truncate
from trillium.policies.tiny import tiny_tokenizer
from trillium.rendering import Rendered
from trillium.trees import TokenPath


def path(context: str, reply: str) -> TokenPath:
    ids = tuple(map(ord, context + reply))
    return TokenPath(ids, (False,) * len(context) + (True,) * len(reply))


def text(path: TokenPath) -> str:
    return "".join(map(chr, path.ids))


def cut(paths: list[TokenPath], limit: int, policy: Truncation) -> list[str] | None:
    short = truncate(paths, max_length=limit, policy=policy, keep_first=False)
    return None if short is None else [text(path) for path in short]


def test_each_policy_cuts_its_own_end() -> None:
    paths = [path("context", "abc"), path("context", "d")]

    assert cut(paths, 10, "drop") == ["contextabc", "contextd"]
    assert cut(paths, 9, "drop") is None
    assert cut(paths, 9, "keep_start") == ["contextab", "contextd"]
    assert cut(paths, 8, "keep_end") == ["ntextabc", "ntextd"]


def test_one_context_token_stays() -> None:
    paths = [path("context", "abc"), path("context", "d")]

    assert cut(paths, 4, "keep_end") == ["tabc", "td"]
    assert cut(paths, 3, "keep_end") is None
    assert cut(paths, 7, "keep_start") is None


def test_keep_end_never_cuts_into_what_differs_between_the_paths() -> None:
    """Replies may begin with different unscored turns; the cut must leave them one root."""
    paths = [path("ctxUUUU", "a"), path("ctxVVVV", "b")]

    assert cut(paths, 6, "keep_end") == ["xUUUUa", "xVVVVb"]
    assert cut(paths, 5, "keep_end") is None


@pytest.mark.property
@given(st.integers(0, 6), st.integers(1, 6), st.integers(1, 6), st.integers(2, 14), st.booleans())
def test_cut_paths_fit_and_stay_contiguous(
    n_context: int, n_first: int, n_second: int, limit: int, keep_first: bool
) -> None:
    context = "BCDEFGH"[: n_context + 1]
    paths = [path(context, "x" * n_first), path(context, "y" * n_second)]

    short = truncate(paths, max_length=limit, policy="keep_end", keep_first=keep_first)

    longest = max(n_first, n_second)
    assert (short is None) == (longest + 1 > limit)
    for before, after in zip(paths, short or (), strict=False):
        assert len(after.ids) <= limit
        assert after.n_scored == before.n_scored
        kept = text(after)
        tail = kept[1:] if keep_first else kept
        assert text(before).endswith(tail)
        assert not keep_first or kept[0] == "B"
        assert not after.scored[0]


def test_a_straddling_token_belongs_to_where_it_ends() -> None:
    from tokenizers import models

    tokenizer = tiny_tokenizer()
    vocabulary = tokenizer.get_vocab()
    vocabulary["bc"] = len(vocabulary)
    tokenizer.backend_tokenizer.model = models.BPE(vocab=vocabulary, merges=[("b", "c")])
    opened = Rendered("abcd", ((2, 4),))
    closed = Rendered("abcd", ((0, 2),))

    first, second = Encoder(tokenizer).encode([[opened], [closed]])

    assert tokenizer.convert_ids_to_tokens(list(first.paths[0].ids)) == ["a", "bc", "d"]
    assert first.paths[0].scored == (False, True, True)
    assert first.is_merged
    # The first token of all has no predictor, so nothing of the second span is left.
    assert second.paths[0].scored == (False, False, False)


def test_special_tokens_in_a_text_are_single_tokens() -> None:
    encoded = Encoder(tiny_tokenizer()).encode_texts(["<|im_start|>a"], is_plain=False)

    assert [len(ids) for ids in encoded] == [2]
