import math

import pytest
from trillium.errors import DataError
from trillium.objectives.recipe_configs import CurryConfig
from trillium.training.config import TrainConfig
from trillium.training.recipes.curriculum import curriculum
from trillium.training.round_rows import read_trees
from trillium.training.rounds import RoundsConfig, run_rounds
from trillium.trees import TokenPath, TokenTree

TRAIN = TrainConfig(
    per_device_train_batch_size=6, learning_rate=4e-3, num_train_epochs=3, order="shuffle"
)
CONFIG = RoundsConfig(train=TRAIN)


def rated(index: int, ratings: tuple[float, ...]) -> TokenTree:
    prompt = (10 + index, 30 + index, 50)
    replies = [(100 + 20 * index + 3 * place, 70 + place, 2) for place in range(len(ratings))]
    paths = [TokenPath(prompt + reply, (False,) * 3 + (True,) * 3) for reply in replies]
    return TokenTree.from_paths(f"prompt {index}", paths, labels={"rating": ratings})


RATINGS = ((9.0, 1.0, 5.0, 8.0), (2.0, 7.0, 6.5, 1.0), (3.0, 4.0, 9.5, 9.0))
LISTS = [rated(index, ratings) for index, ratings in enumerate(RATINGS)]


def test_stages_go_from_wide_gaps_to_narrow_ones_and_never_mix() -> None:
    recipe = curriculum(LISTS)
    stages = [recipe.source.trees(number) for number in range(recipe.n_rounds)]
    assert [[tree.id for tree in stage] for stage in stages] == [
        ["prompt 0/0-1", "prompt 1/1-3", "prompt 2/2-0"],
        ["prompt 0/0-2", "prompt 1/1-0", "prompt 2/2-1"],
        ["prompt 0/0-3", "prompt 1/1-2", "prompt 2/2-3"],
    ]
    gaps = [[tree.columns["gap"] for tree in stage] for stage in stages]
    assert gaps == [[8.0, 6.0, 6.5], [4.0, 5.0, 5.5], [1.0, 0.5, 0.5]]
    backwards = curriculum(LISTS, order=CurryConfig(order="hard_to_easy"))
    assert backwards.source.trees(0) == stages[2]


def test_ties_make_no_pairs_and_end_a_curriculum_early() -> None:
    recipe = curriculum([rated(0, (5.0, 5.0, 1.0)), rated(1, (3.0, 2.0, 1.0))])
    assert [len(recipe.source.trees(number)) for number in range(recipe.n_rounds)] == [2, 1]
    with pytest.raises(DataError, match="no two responses of one prompt differ in rating"):
        curriculum([rated(0, (5.0, 5.0))])
    with pytest.raises(DataError, match='field "score" is missing'):
        curriculum(LISTS, rating="score")
    with pytest.raises(DataError, match="tree prompt 0: curry_dpo: the ratings are"):
        curriculum([rated(0, (math.nan, 2.0, 1.0)), *LISTS])


def test_each_stage_is_relative_to_the_model_of_the_stage_before(policy, tmp_path):
    """At ln 2 every iterated stage begins; relative to the base, stage 2 begins with a gain."""
    iterated = run_rounds(curriculum(LISTS), CONFIG, policy(spread=0.0), tmp_path / "iterated")
    fixed_recipe = curriculum(LISTS, is_iterated=False)
    fixed = run_rounds(fixed_recipe, CONFIG, policy(spread=0.0), tmp_path / "fixed")
    first = [each.metrics[0]["loss"] for each in iterated]
    assert first == pytest.approx([math.log(2)] * 3, abs=1e-5)
    # The best response of each prompt is chosen in every stage, so the gain carries over.
    assert fixed[1].metrics[0]["loss"] < math.log(2) - 0.01
    for number, each in enumerate(iterated):
        assert read_trees(each.trees) == list(curriculum(LISTS).source.trees(number))
        assert all(row["n_tokens"] == each.metrics[0]["n_tokens"] for row in each.metrics)
        assert each.metrics[-1]["loss"] < each.metrics[0]["loss"]
