"""From pairs to trees to train on: two paths for a pair, or a labelled row for each program."""

from collections.abc import Sequence

from trillium.objectives.configs import ObjectiveConfig
from trillium.objectives.table import needs_of
from trillium.trees import TokenPath, TokenTree

from trillium_code.records import CodePair

Reply = tuple[tuple[int, ...], tuple[int, ...]]


def training_trees(pairs: Sequence[CodePair], objective: ObjectiveConfig) -> list[TokenTree]:
    """Return pairs as trees for objectives of pairs, else the halves of pairs as labelled rows."""
    if needs_of(objective).shape == "pair":
        return [pair.tree() for pair in pairs]
    return labelled_trees(pairs)


def labelled_trees(pairs: Sequence[CodePair]) -> list[TokenTree]:
    """Return each chosen program once with label 1 and each rejected one once with label 0.

    A program that one pair chooses and another rejects says nothing by itself and is left out.
    """
    labels: dict[Reply, set[float]] = {}
    names: dict[Reply, str] = {}
    for pair in pairs:
        for ids, label in ((pair.chosen_ids, 1.0), (pair.rejected_ids, 0.0)):
            reply = (pair.prompt_ids, ids)
            labels.setdefault(reply, set()).add(label)
            names.setdefault(reply, f"{pair.id}/{'chosen' if label else 'rejected'}")
    return [
        TokenTree.from_paths(
            names[prompt, ids],
            [TokenPath(prompt + ids, (False,) * len(prompt) + (True,) * len(ids))],
            labels={"label": tuple(found)},
        )
        for (prompt, ids), found in labels.items()
        if len(found) == 1
    ]
