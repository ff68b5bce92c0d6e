import pytest
from hypothesis import given
from hypothesis import strategies as st
from trillium.errors import DataError
from trillium.mismatch import pair_mismatched
from trillium.trees import TokenPath, TokenTree


def tree(prompt: int, reply: tuple[int, ...]) -> TokenTree:
    path = TokenPath((1, prompt, *reply), (False, False) + (True,) * len(reply))
    return TokenTree.from_paths(f"{prompt}", [path])


def replies(trees: tuple[TokenTree, ...]) -> list[tuple[int, ...]]:
    return [tree.path(0).ids[2:] for tree in trees]


@pytest.mark.property
@given(st.lists(st.integers(0, 4), min_size=2, max_size=20), st.integers(0, 9))
def test_every_prompt_gets_the_reply_of_another_row(kinds: list[int], seed: int) -> None:
    trees = [tree(100 + index, (kind, 7)) for index, kind in enumerate(kinds)]
    if len(set(kinds)) == 1:
        with pytest.raises(DataError, match="same reply"):
            pair_mismatched(trees, seed=seed)
        return

    mismatched = pair_mismatched(trees, seed=seed)

    assert [t.path(0).ids[:2] for t in mismatched] == [t.path(0).ids[:2] for t in trees]
    pairs = zip(replies(mismatched), replies(tuple(trees)), strict=True)
    assert all(given_reply != own for given_reply, own in pairs)
    assert [t.id for t in mismatched] == [t.id for t in trees]
    if max(map(kinds.count, kinds)) * 2 <= len(kinds):
        assert sorted(replies(mismatched)) == sorted(replies(tuple(trees)))


def test_the_seed_alone_decides() -> None:
    trees = [tree(index, (index, 9)) for index in range(50)]

    assert pair_mismatched(trees, seed=1) == pair_mismatched(trees, seed=1)
    assert pair_mismatched(trees, seed=1) != pair_mismatched(trees, seed=2)


def test_masks_with_holes_and_limits_carry_over() -> None:
    holes = TokenPath((1, 2, 3, 4, 5, 6), (False, False, True, False, True, True))
    trees = [TokenTree.from_paths("a", [holes]), tree(9, (8,))]

    first, second = pair_mismatched(trees, seed=0, max_length=5)

    assert first.path(0) == TokenPath((1, 2, 8), (False, False, True))
    assert second.path(0) == TokenPath((1, 9, 3, 4, 5), (False, False, True, False, True))


def test_pairs_have_no_mismatch() -> None:
    two = TokenTree.from_paths(
        "a", [TokenPath((1, 2), (False, True)), TokenPath((1, 3), (False, True))]
    )

    with pytest.raises(DataError, match="tree a: has 2 paths"):
        pair_mismatched([two], seed=0)
