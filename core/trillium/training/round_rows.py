"""What rounds keep on disk: sampled candidates, and the trees chosen from them.

JSON lines without clock times, so that the same round writes the same bytes.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from trillium.errors import DataError
from trillium.files import hash_json, read_rows, write_atomically
from trillium.generation.interface import Completion
from trillium.trees import TokenPath, TokenTree


@dataclass(frozen=True)
class Prompt:
    """Hold one prompt: the tokens a policy continues, and the text a judge reads."""

    id: str
    ids: tuple[int, ...]
    text: str = ""


@dataclass(frozen=True)
class Candidates:
    """Hold what the policy wrote for one prompt, and one score for each completion."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    scores: tuple[float, ...]

    def pair(
        self, chosen: int, rejected: int, columns: Mapping[str, float] | None = None
    ) -> TokenTree:
        """Return two of the completions, by index, as a pair; the prompt is not scored."""
        id = f"{self.prompt.id}/{chosen}-{rejected}"
        paths = [self.path(index) for index in (chosen, rejected)]
        return TokenTree.from_paths(id, paths, columns=columns)

    def path(self, index: int) -> TokenPath:
        """Return one of the completions, by index, after its prompt, which is not scored."""
        prompt, ids = self.prompt.ids, self.completions[index].ids
        return TokenPath(prompt + ids, (False,) * len(prompt) + (True,) * len(ids))


def check_prompts(title: str, prompts: Sequence[Prompt]) -> None:
    """Raise DataError when there is no prompt or two share an id; `title` says who asks."""
    if not prompts:
        raise DataError(f"{title}: no prompt to answer (needs at least one); check the data")
    ids = [prompt.id for prompt in prompts]
    twice = next((id for id, count in Counter(ids).items() if count > 1), None)
    if twice is not None:
        raise DataError(
            f"{title}: {ids.count(twice)} prompts are called {twice} (each needs an id of its "
            "own); rename them"
        )


def hash_prompts(prompts: Sequence[Prompt]) -> str:
    """Return the hash of prompts by content."""
    return hash_json([[prompt.id, list(prompt.ids), prompt.text] for prompt in prompts])


def hash_trees(trees: Sequence[TokenTree]) -> str:
    """Return the hash of trees by content."""
    return hash_json([_tree_to_json(tree) for tree in trees])


def completions_to_json(groups: Sequence[Sequence[Completion]]) -> object:
    """Return groups of completions as a JSON value."""
    return _COMPLETIONS.dump_python([list(group) for group in groups], mode="json")


def completions_from_json(value: object) -> list[list[Completion]]:
    """Return the groups that `completions_to_json` was given."""
    return _COMPLETIONS.validate_python(value)


def write_trees(path: Path, trees: Sequence[TokenTree]) -> None:
    """Write trees, one per line."""
    lines = [json.dumps(_tree_to_json(tree), ensure_ascii=False, allow_nan=False) for tree in trees]
    write_atomically(path, "".join(line + "\n" for line in lines))


def read_trees(path: Path) -> list[TokenTree]:
    """Return the trees that `write_trees` wrote."""
    return [tree_from_json(row) for row in read_rows(path)]


def tree_from_json(row: Mapping[str, object]) -> TokenTree:
    """Return the tree of one line that `write_trees` wrote."""
    return _TREE.validate_python(row)


def _tree_to_json(tree: TokenTree) -> dict[str, object]:
    return {
        "id": tree.id,
        "nodes": [
            {"ids": list(node.ids), "scored": list(node.scored), "parent": node.parent}
            for node in tree.nodes
        ],
        "leaves": list(tree.leaves),
        "labels": {name: list(values) for name, values in tree.labels.items()},
        "columns": dict(tree.columns),
        **({"steps": [list(counts) for counts in tree.steps]} if tree.steps else {}),
    }


_COMPLETIONS = TypeAdapter(list[list[Completion]])
_TREE = TypeAdapter(TokenTree)
