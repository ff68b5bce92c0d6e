"""Replies under other rows' prompts, from which KTO estimates its KL term (arXiv 2402.01306)."""

import random
from collections.abc import Sequence

from trillium.errors import DataError
from trillium.trees import TokenPath, TokenTree


def pair_mismatched(
    trees: Sequence[TokenTree], *, seed: int, max_length: int | None = None
) -> tuple[TokenTree, ...]:
    """Return, for each tree of one path, its prompt followed by another tree's reply.

    The reply is never equal to the tree's own; which one it is depends on `seed` alone. A path
    longer than `max_length` loses the end of the reply. The prompt is what comes before the first
    scored token. Raises DataError when all replies are the same.
    """
    paths = [_only_path(tree) for tree in trees]
    replies = [reply_of(path) for path in paths]
    partners = _derange(replies, random.Random(seed))
    mismatched = []
    for tree, path, partner in zip(trees, paths, partners, strict=True):
        split, reply = path.scored.index(True), replies[partner]
        whole = TokenPath(
            (path.ids[:split] + reply.ids)[:max_length],
            (path.scored[:split] + reply.scored)[:max_length],
        )
        mismatched.append(TokenTree.from_paths(tree.id, [whole]))
    return tuple(mismatched)


def reply_of(path: TokenPath) -> TokenPath:
    """Return what follows the prompt: everything from the first scored token on."""
    first = path.scored.index(True)
    return TokenPath(path.ids[first:], path.scored[first:])


def _only_path(tree: TokenTree) -> TokenPath:
    if tree.n_paths != 1:
        raise DataError(
            f"tree {tree.id}: has {tree.n_paths} paths (mismatched replies need rows with one); "
            "give prompt, completion and label"
        )
    return tree.path(0)


def _derange(replies: Sequence[object], rng: random.Random) -> list[int]:
    """Return a partner with another reply for each index; a permutation where there is one."""
    groups: dict[object, list[int]] = {}
    for index, reply in enumerate(replies):
        groups.setdefault(reply, []).append(index)
    if len(groups) < 2:
        raise DataError(
            f"mismatched replies: all {len(replies)} rows have the same reply (needs at least two "
            "different ones); add rows"
        )
    members = list(groups.values())
    rng.shuffle(members)
    for group in members:
        rng.shuffle(group)
    order = [index for group in members for index in group]
    # Rows with equal replies lie together, so a shift by the largest group leaves every group.
    shift = max(map(len, members))
    partners = [0] * len(replies)
    for place, index in enumerate(order):
        partner = order[(place + shift) % len(order)]
        if replies[partner] == replies[index]:
            # One reply has more than half of the rows; no permutation can avoid it.
            partner = rng.choice([other for other in order if replies[other] != replies[index]])
        partners[index] = partner
    return partners
