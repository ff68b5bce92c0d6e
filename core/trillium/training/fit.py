"""Whether data and objective belong together: checked before any model is loaded."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from trillium.errors import ConfigError, DataError
from trillium.mismatch import reply_of
from trillium.objectives.batch import Needs, Shape
from trillium.objectives.configs import MODPOConfig, ObjectiveConfig, SPPOConfig
from trillium.objectives.recipe_configs import (
    DegreeConfig,
    LiPOConfig,
    OREOConfig,
    SRPOConfig,
    TreeTPOConfig,
    XPOConfig,
)
from trillium.objectives.table import needs_of
from trillium.training.config import TrainConfig
from trillium.trees import TokenTree

RowKind = Literal["pairs", "labelled rows", "rankings", "search trees", "trajectories"]
_KINDS: dict[Shape, RowKind] = {
    "pair": "pairs",
    "pair_token": "pairs",
    "single": "labelled rows",
    "list": "rankings",
    "steps": "search trees",
    "token": "trajectories",
}
_PATHS = {
    "pairs": "pairs of a chosen and a rejected response",
    "labelled rows": "labelled rows",
    "rankings": "lists of two or more responses",
    "search trees": "search trees of two or more paths",
    "trajectories": "trajectories of one path",
}


def check_fit(
    objective: ObjectiveConfig,
    trees: Sequence[TokenTree],
    train: TrainConfig,
    *,
    n_held_out: int = 0,
    where: str = "training",
) -> None:
    """Raise DataError or ConfigError when the objective cannot be computed on these trees.

    `where` names the rows in the messages: their file, or what they are for.
    """
    if not trees:
        raise DataError(
            f"{where}: no tree is left to train on (needs at least one); check the data set and "
            "the counts of dropped rows"
        )
    check_options(objective, train, n_held_out=n_held_out)
    needs = needs_of(objective)
    for tree in trees:
        _check_tree(where, tree, objective, needs)
    if needs.mismatched and len(trees) < 2:
        raise DataError(
            f"{where}: {len(trees)} row (objective {objective.name} pairs each prompt with the "
            "response of another row, so it needs two or more); add rows"
        )
    if needs.mismatched and len({reply_of(tree.path(0)) for tree in trees}) < 2:
        raise DataError(
            f"{where}: all {len(trees)} rows have the same response (objective {objective.name} "
            "pairs each prompt with the response of another row, so it needs two different ones); "
            "add rows"
        )


def check_options(objective: ObjectiveConfig, train: TrainConfig, *, n_held_out: int) -> None:
    """Raise ConfigError for an option that no run like this could honour."""
    if train.eval_steps is not None and not n_held_out:
        raise ConfigError(
            "train.eval_steps is set and there is nothing held out (needs trees to evaluate on); "
            "give data.held_out, or remove train.eval_steps"
        )
    if train.overoptimisation_steps is not None and not n_held_out:
        raise ConfigError(
            "train.overoptimisation_steps is set and there is nothing held out (needs prompts to "
            "sample from); give data.held_out, or remove train.overoptimisation_steps"
        )
    if train.stop_margin is not None and not has_logratio_margin(objective):
        raise ConfigError(
            f"train.stop_margin is set and objective {objective.name} has no log-ratio margin "
            "(needs pairs and a reference); remove train.stop_margin, or choose another objective"
        )
    if isinstance(objective, MODPOConfig) and len(objective.w) > 2:
        raise ConfigError(
            f"objective.w has {len(objective.w)} weights (rows hold one margin per response, so "
            "training takes two); set objective.w to the first weight and the sum of the others, "
            "and give rows the weighted mean of the other margins"
        )


def has_logratio_margin(objective: ObjectiveConfig) -> bool:
    """Say whether a run can stop on how far pairs are apart, as seen from a reference."""
    return needs_of(objective).reference and row_kind(objective) == "pairs"


def row_kind(objective: ObjectiveConfig) -> RowKind:
    """Name the kind of rows that the objective trains on."""
    return _KINDS[needs_of(objective).shape]


def value_problems(
    objective: ObjectiveConfig,
    labels: Mapping[str, Sequence[float]],
    columns: Mapping[str, float],
) -> Iterator[str]:
    """Say which labels and columns hold what the objective cannot compute with."""
    label = labels.get("label", ())
    name = objective.name
    if name == "kto" and any(value not in (0, 1) for value in label):
        yield (
            f'field "label" is {label[0]:g} (objective kto needs true or false, 1 or 0); '
            "correct the line"
        )
    ranks = labels.get("rank", ()) if _reads_ranks(objective) else ()
    if not all(1 <= rank <= len(ranks) for rank in ranks):
        yield (
            f'field "ranks" is {list(ranks)} (objective {name} needs one number from 1, the best, '
            f"to {len(ranks)} per response); correct the line"
        )
    elif isinstance(objective, LiPOConfig | TreeTPOConfig) and not all(0 <= x <= 1 for x in label):
        yield (
            f'field "labels" is {list(label)} (objective {name} needs one number from 0 to 1 per '
            "response); rescale them, or set objective.labels_from=rewards"
            if isinstance(objective, LiPOConfig)
            else f'field "label" is {list(label)} (objective {name} needs one number from 0 to 1 '
            "per path); rescale them"
        )
    elif isinstance(objective, LiPOConfig) and objective.variant == "softmax" and not any(label):
        yield (
            f'field "labels" is {list(label)} (objective lipo with variant softmax shares them '
            "out, so one must be above 0); drop the line, or choose another variant"
        )
    chances = needs_of(objective).columns if isinstance(objective, SRPOConfig | SPPOConfig) else ()
    for column in chances:
        if not 0 <= columns.get(column, 0) <= 1:
            yield (
                f'field "{column}" is {columns[column]:g} (objective {name} needs a probability, '
                "0 to 1); correct the line"
            )
    smoothing = columns.get("label_smoothing", 0)
    if "label_smoothing" in needs_of(objective).columns and not 0 <= smoothing <= 0.5:
        yield (
            f'field "label_smoothing" is {smoothing:g} (objective {name} needs the chance that the '
            "label is flipped, 0 to 0.5); correct the line"
        )
    if isinstance(objective, XPOConfig) and columns.get("reference_is_chosen", 0) not in (0, 1):
        yield (
            f'field "reference_is_chosen" is {columns["reference_is_chosen"]:g} (objective xpo '
            "needs 1 when the chosen response is the reference's sample, 0 when the rejected one "
            "is); correct the line"
        )
    degree = columns.get("degree_label", 0)
    if isinstance(objective, DegreeConfig) and degree not in range(objective.n_degrees):
        yield (
            f'field "degree_label" is {degree:g} (objective spo_degree needs a whole number from 0 '
            f"to {objective.n_degrees - 1}); correct the line, or set objective.n_degrees"
        )


def _reads_ranks(objective: ObjectiveConfig) -> bool:
    return isinstance(objective, LiPOConfig) and objective.labels_from == "ranks"


def _check_tree(where: str, tree: TokenTree, objective: ObjectiveConfig, needs: Needs) -> None:
    """Raise DataError when one tree has not the paths, labels, columns or steps that are needed."""
    name, kind = objective.name, row_kind(objective)
    where = f"{where}: tree {tree.id}"
    n_paths = {"pairs": 2, "labelled rows": 1, "trajectories": 1}.get(kind)
    n_further = len(needs.paths)
    is_few = tree.n_paths < 2 if n_paths is None else tree.n_paths != n_paths + n_further
    if is_few:
        further = f" and the paths {', '.join(needs.paths)}" if needs.paths else ""
        raise DataError(
            f"{where}: has {tree.n_paths} responses (objective {name} needs "
            f"{_PATHS[kind]}{further}); choose an objective that fits the data, or convert the rows"
        )
    columns = {*needs.columns, *needs.behind}
    missing = sorted({*needs.labels} - {*tree.labels} | columns - {*tree.columns})
    if missing:
        raise DataError(
            f'{where}: field "{missing[0]}" is missing (objective {name} '
            f"needs {', '.join([*needs.labels, *sorted(columns)])}); add it to every row"
        )
    by_step = isinstance(objective, OREOConfig) and objective.level == "step"
    if (needs.shape == "steps" or needs.prompts or by_step) and not tree.steps:
        raise DataError(
            f"{where}: says nothing of its steps (objective {name} needs the counts of "
            "scored tokens per step); tokenise it from a row, or give TokenTree.steps"
        )
    for problem in value_problems(objective, tree.labels, tree.columns):
        raise DataError(f"{where}: {problem}")
