"""Show one tree in colour before a run starts, so that a wrong mask is seen and not trained on."""

from collections.abc import Sequence
from itertools import groupby
from typing import Literal

from rich.text import Text
from transformers import PreTrainedTokenizerBase

from trillium.trees import TokenTree

Part = Literal["context", "scored", "masked"]

STYLES: dict[Part, str] = {"context": "dim", "scored": "bold green", "masked": "yellow"}


def render_tree(tree: TokenTree, tokenizer: PreTrainedTokenizerBase) -> Text:
    """Return the shared root once, then what each path adds to it, coloured by part.

    `context` comes before a path's first scored token, `scored` counts in the loss, `masked` comes
    later and is attended to but not scored (tool output, headers, user turns).
    """
    text = Text()
    text.append(f"tree {tree.id}: paths {tree.n_paths}, tokens {tree.n_tokens}\n", style="bold")
    for part, style in STYLES.items():
        text.append(f" {part} ", style=f"{style} reverse")
    n_root = len(tree.nodes[0].ids)
    root = tree.path(0)
    text.append(f"\n-- shared, {n_root} tokens\n", style="cyan")
    _append(text, root.ids[:n_root], parts(root.scored)[:n_root], tokenizer)
    for index in range(tree.n_paths):
        path = tree.path(index)
        labels = "".join(f", {name} {values[index]:g}" for name, values in tree.labels.items())
        text.append(
            f"\n-- path {index}, {path.n_scored} scored of {len(path.ids)} tokens{labels}\n",
            style="cyan",
        )
        _append(text, path.ids[n_root:], parts(path.scored)[n_root:], tokenizer)
    return text.append("\n")


def parts(scored: Sequence[bool]) -> list[Part]:
    """Name the part of each token of a path."""
    first = scored.index(True) if True in scored else len(scored)
    return [
        "context" if place < first else "scored" if counts else "masked"
        for place, counts in enumerate(scored)
    ]


def _append(
    text: Text, ids: Sequence[int], names: Sequence[Part], tokenizer: PreTrainedTokenizerBase
) -> None:
    # Runs, not tokens: one character can be several byte tokens.
    for part, run in groupby(zip(names, ids, strict=True), key=lambda pair: pair[0]):
        decoded = tokenizer.decode([token for _, token in run], skip_special_tokens=False)
        text.append(str(decoded), style=STYLES[part])
