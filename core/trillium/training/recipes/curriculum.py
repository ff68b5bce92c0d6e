"""Curry-DPO: pairs of one prompt from easy to hard, one round for each difficulty."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trillium.errors import DataError
from trillium.objectives.configs import DPOConfig
from trillium.objectives.iterations import curry_dpo
from trillium.objectives.recipe_configs import CurryConfig
from trillium.training.recipes.recipe import Recipe
from trillium.trees import TokenTree

_EASY_FIRST = CurryConfig()
_DPO = DPOConfig()


@dataclass(frozen=True)
class Curriculum:
    """Trees by difficulty: round k trains on `stages[k]` alone, in any order within it."""

    stages: tuple[tuple[TokenTree, ...], ...]

    def trees(self, number: int) -> Sequence[TokenTree]:
        """Return the pairs of one difficulty."""
        return self.stages[number]


def curriculum(
    lists: Sequence[TokenTree],
    *,
    rating: str = "rating",
    order: CurryConfig = _EASY_FIRST,
    objective: DPOConfig = _DPO,
    is_iterated: bool = True,
) -> Recipe:
    """Return Curry-DPO over lists of rated responses (arXiv 2403.07230).

    The best response of each prompt is paired with each of the others, and the widest gap of every
    prompt makes the first stage. A prompt with fewer pairs, because of ties, is not in the last
    stages. Iterated, the reference of a stage is the policy that the stage before left; otherwise
    it is the base for all of them.
    Raises DataError when a list has no such label or one that is not finite, or no prompt has two
    different ratings.
    """
    pairs = [_pairs_of(tree, rating, order) for tree in lists]
    n_stages = max(map(len, pairs), default=0)
    if n_stages == 0:
        raise DataError(
            f"curriculum: no two responses of one prompt differ in {rating} ({len(lists)} lists "
            "were given); rate the responses apart, or give more of them"
        )
    stages = tuple(
        tuple(each[position] for each in pairs if position < len(each))
        for position in range(n_stages)
    )
    return Recipe(
        name="curry_dpo",
        n_rounds=n_stages,
        source=Curriculum(stages),
        objective=objective,
        reference="snapshot" if is_iterated else "base",
    )


def _pairs_of(tree: TokenTree, rating: str, config: CurryConfig) -> list[TokenTree]:
    """Return the pairs of one prompt, in the order of their stages."""
    if rating not in tree.labels:
        raise DataError(
            f'tree {tree.id}: field "{rating}" is missing (a curriculum needs one rating per '
            "response); add it to every row"
        )
    ratings = torch.tensor(tree.labels[rating], dtype=torch.float64)
    try:
        pairs = curry_dpo(ratings, order=config.order)
    except DataError as error:
        raise DataError(f"tree {tree.id}: {error}") from error
    return [
        TokenTree.from_paths(
            f"{tree.id}/{pair.chosen}-{pair.rejected}",
            [tree.path(pair.chosen), tree.path(pair.rejected)],
            columns={"gap": pair.gap},
        )
        for pair in pairs
    ]
