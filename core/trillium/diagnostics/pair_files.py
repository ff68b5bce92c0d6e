"""Pairs out of any preference file: text rows of every kind, token rows and trees.

A ranking gives its best against its worst response; labelled rows give, prompt by prompt, the first
good against the first bad one, and so on. What cannot be paired is counted, never hidden.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from transformers import PreTrainedTokenizerBase

from trillium.errors import ConfigError, DataError
from trillium.fields import Text
from trillium.files import hash_json, write_atomically
from trillium.records import LabelledRow, PairRow, RankingRow, Row
from trillium.rowfiles import Broken, fields_of, load_rows, read_lines, save_rows
from trillium.tokenize import tokenize_pairs
from trillium.tokenize_config import TokenizeConfig
from trillium.trees import TokenPath, TokenTree

_TREE = TypeAdapter(TokenTree)


@dataclass(frozen=True)
class PairFile:
    """Hold pairs as trees (chosen first), what was left out, and how to write some of them."""

    trees: tuple[TokenTree, ...]
    left_out: str
    write: Callable[[Path, Sequence[int]], None]

    @cached_property
    def digest(self) -> str:
        """Name the pairs by their tokens, and by what of them is scored."""
        return hash_json([[t.path(i).digest for i in range(t.n_paths)] for t in self.trees])


def read_pairs(path: Path, tokenizer: PreTrainedTokenizerBase, config: TokenizeConfig) -> PairFile:
    """Read a file of preferences; raises DataError naming the lines that are wrong."""
    fields = fields_of(path)
    if path.suffix == ".jsonl" and (
        {"nodes", "leaves"} <= fields or {"prompt_ids", "chosen_ids", "rejected_ids"} <= fields
    ):
        return _read_tokens(path, len(tokenizer))
    pairs, n_alone = _load_text(path, fields)
    if not pairs:
        raise DataError(
            f"{path}: no prompt has both a good and a bad response (needs at least one pair); "
            "add rows"
        )
    # Named by place while some are left out: ids of a file may repeat.
    placed = [replace(row, id=str(place)) for place, row in enumerate(pairs)]
    found = tokenize_pairs(placed, tokenizer, config)
    rows = [pairs[int(tree.id)] for tree in found.trees]
    trees = tuple(replace(t, id=row.id) for t, row in zip(found.trees, rows, strict=True))
    alone = f", {n_alone:,} rows without a partner" if n_alone else ""

    def write(target: Path, places: Sequence[int]) -> None:
        save_rows(target, [rows[place] for place in places])

    return PairFile(trees, found.report.summary() + alone, write)


def _load_text(path: Path, fields: set[str]) -> tuple[list[PairRow], int]:
    if "completions" in fields and "chosen" not in fields:
        rankings = load_rows(path, RankingRow)
        pairs = [pair for row in rankings if (pair := _ends(row)) is not None]
        return pairs, len(rankings) - len(pairs)
    if "completion" in fields and "chosen" not in fields:
        labelled = load_rows(path, LabelledRow)
        pairs = _pair_up(labelled)
        return pairs, len(labelled) - 2 * len(pairs)
    return load_rows(path, PairRow), 0


def _ends(row: RankingRow) -> PairRow | None:
    """Return the best and the worst response of a ranking, None when all are equal."""
    for name, sign in (("reward", 1.0), ("rank", -1.0), ("label", 1.0)):
        if name in row.labels:
            values = [sign * value for value in row.labels[name]]
            best, worst = values.index(max(values)), values.index(min(values))
            if values[best] == values[worst]:
                return None
            return _pair(row, row.prompt, row.completions[best], row.completions[worst])
    return None


def _pair_up(rows: Sequence[LabelledRow]) -> list[PairRow]:
    sides: dict[str, tuple[list[LabelledRow], list[LabelledRow]]] = {}
    names = {id(row): json.dumps(row.to_record()["prompt"], sort_keys=True) for row in rows}
    for row in rows:
        good, bad = sides.setdefault(names[id(row)], ([], []))
        (good if row.label > 0.5 else bad).append(row)
    return [
        _pair(good, good.prompt, good.completion, bad.completion)
        for goods, bads in sides.values()
        for good, bad in zip(goods, bads, strict=False)
    ]


def _pair(row: Row, prompt: Text, chosen: Text, rejected: Text) -> PairRow:
    return PairRow(
        id=row.id,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        tools=row.tools,
        template_kwargs=row.template_kwargs,
        where=row.where,
    )


def _read_tokens(path: Path, n_vocab: int) -> PairFile:
    trees: list[TokenTree] = []
    lines: list[str] = []
    n_other = 0
    for number, row in read_lines(path):
        if isinstance(row, Broken):
            raise DataError(f"{path}:{number}: {row.reason}")
        try:
            tree = _to_tree(row, f"{path.name}:{number}")
            _check_tokens(tree, n_vocab)
        except (ValueError, TypeError, KeyError, ValidationError) as error:
            raise DataError(
                f"{path}:{number}: is no pair in tokens ({str(error).splitlines()[0]}); "
                "drop the line"
            ) from None
        if tree.n_paths != 2:
            n_other += 1
            continue
        trees.append(tree)
        lines.append(json.dumps(row, ensure_ascii=False))
    if not trees:
        raise DataError(
            f"{path}: holds {n_other} trees and no pair (needs trees of two paths); give a file "
            "of pairs"
        )

    def write(target: Path, places: Sequence[int]) -> None:
        if target.suffix != ".jsonl":
            raise ConfigError(f"{target}: pairs in tokens are written as .jsonl; name such a file")
        write_atomically(target, "".join(lines[place] + "\n" for place in places))

    other = f", {n_other} trees that are no pairs" if n_other else ""
    return PairFile(tuple(trees), f"{len(trees):,} pairs in tokens{other}", write)


def _to_tree(row: object, where: str) -> TokenTree:
    if not isinstance(row, dict):
        raise TypeError("not an object")
    if "nodes" in row:
        return _TREE.validate_python(row)
    prompt = _ids(row["prompt_ids"])
    paths = [
        TokenPath(prompt + reply, (False,) * len(prompt) + (True,) * len(reply))
        for reply in (_ids(row["chosen_ids"]), _ids(row["rejected_ids"]))
    ]
    return TokenTree.from_paths(str(row.get("id", where)), paths)


def _check_tokens(tree: TokenTree, n_vocab: int) -> None:
    """Raise ValueError for tokens that no model of this tokenizer reads, and for empty replies."""
    for index in range(tree.n_paths):
        path = tree.path(index)
        if not path.n_scored:
            raise ValueError(f"response {index} has no token that counts")
        if not 0 <= min(path.ids) <= max(path.ids) < n_vocab:
            raise ValueError(
                f"response {index} has tokens {min(path.ids)} to {max(path.ids)}, and the "
                f"tokenizer knows 0 to {n_vocab - 1}"
            )


def _ids(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(token) is int for token in value):
        raise TypeError("token ids are not a list of whole numbers")
    return tuple(value)
