"""Whether data and objective belong together: checked before any model is loaded."""

from collections.abc import Sequence

from trillium.errors import ConfigError, DataError
from trillium.mismatch import reply_of
from trillium.objectives.configs import ObjectiveConfig
from trillium.objectives.table import needs_of
from trillium.training.config import TrainConfig
from trillium.trees import TokenTree

_SHAPES = {"pair": (2, "pairs of a chosen and a rejected response"), "single": (1, "labelled rows")}


def check_fit(
    objective: ObjectiveConfig,
    trees: Sequence[TokenTree],
    train: TrainConfig,
    *,
    n_held_out: int = 0,
) -> None:
    """Raise DataError or ConfigError when the objective cannot be computed on these trees."""
    if not trees:
        raise DataError(
            "training: no tree is left to train on (needs at least one); check the data set and "
            "the counts of dropped rows"
        )
    check_options(objective, train, n_held_out=n_held_out)
    needs = needs_of(objective)
    n_paths, what = _SHAPES[needs.shape]
    for tree in trees:
        if tree.n_paths != n_paths:
            raise DataError(
                f"tree {tree.id}: has {tree.n_paths} responses (objective {objective.name} needs "
                f"{what}); choose an objective that fits the data, or convert the rows"
            )
        missing = sorted({*needs.labels} - {*tree.labels} | {*needs.columns} - {*tree.columns})
        if missing:
            raise DataError(
                f'tree {tree.id}: field "{missing[0]}" is missing (objective {objective.name} '
                f"needs {', '.join([*needs.labels, *needs.columns])}); add it to every row"
            )
    if needs.mismatched and len(trees) < 2:
        raise DataError(
            f"training: {len(trees)} row (objective {objective.name} pairs each prompt with the "
            "response of another row, so it needs two or more); add rows"
        )
    if needs.mismatched and len({reply_of(tree.path(0)) for tree in trees}) < 2:
        raise DataError(
            f"training: all {len(trees)} rows have the same response (objective {objective.name} "
            "pairs each prompt with the response of another row, so it needs two different ones); "
            "add rows"
        )


def check_options(objective: ObjectiveConfig, train: TrainConfig, *, n_held_out: int) -> None:
    """Raise ConfigError for an objective or an option that no run like this could honour."""
    needs = needs_of(objective)
    if needs.shape not in _SHAPES or needs.further:
        raise ConfigError(
            f"objective {objective.name} needs inputs that training does not build "
            f"({', '.join(needs.further) or needs.shape}); call its function from a recipe, or "
            "choose another objective"
        )
    if train.eval_steps is not None and not n_held_out:
        raise ConfigError(
            "train.eval_steps is set and there is nothing held out (needs trees to evaluate on); "
            "give data.held_out, or remove train.eval_steps"
        )
    if train.stop_margin is not None and not (needs.reference and needs.shape == "pair"):
        raise ConfigError(
            f"train.stop_margin is set and objective {objective.name} has no log-ratio margin "
            "(needs pairs and a reference); remove train.stop_margin, or choose another objective"
        )
