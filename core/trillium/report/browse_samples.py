"""What the browser of samples shows: rows of preferences and token trees, all as trees of text.

Reads the preference files of `records` and the token rows that runs keep: trees (`nodes`,
`leaves`), pairs (`prompt_ids`, `chosen_ids`, `rejected_ids`) and trajectories (`token_ids`,
`spans`). Token ids become text through a `Decode`; nothing here knows models or pages.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pydantic import ValidationError

from trillium.errors import DataError
from trillium.fields import Text
from trillium.problems import Place, Problem, describe_problems
from trillium.records import RANKING_LABELS, LabelledRow, PairRow, RankingRow, Row, TrajectoryRow
from trillium.rowfiles import Broken, fields_of, load_rows, read_lines
from trillium.search_records import TreeRow
from trillium.training.round_rows import tree_from_json
from trillium.trees import Node, TokenPath, TokenTree

# Raises DataError for ids that are no tokens.
Decode = Callable[[Sequence[int]], str]
Record = Mapping[str, object]
_MAX_SHOWN = 100


@dataclass(frozen=True)
class TextNode:
    """Hold a run of text, in parts that the policy wrote or was given; `parent` is an index."""

    parts: tuple[tuple[str, bool], ...]
    parent: int = -1
    badges: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """Hold one preference as a tree of text; parents come before children."""

    id: str
    kind: str
    nodes: tuple[TextNode, ...]
    badges: tuple[str, ...] = ()


def find_sample_files(folder: Path) -> list[Path]:
    """Return the files of a run folder that hold samples, by name."""
    found = [path for path in folder.rglob("*.jsonl") if ".work" not in path.parts]
    return sorted(path for path in found if kind_of(path) is not None)


def kind_of(path: Path) -> str | None:
    """Name what the rows of a file are by the fields of the first; None when they are no samples.

    A Parquet file is taken as pairs, rankings or labels, by its columns.
    """
    fields = fields_of(path)
    for kind, needed in _KINDS:
        if needed <= fields:
            return kind
    return None


def needs_tokens(kind: str) -> bool:
    """Say whether rows of this kind hold token ids and therefore need a tokenizer."""
    return kind in _TOKEN_ROWS


def read_samples(path: Path, decode: Decode | None) -> Iterator[Sample]:
    """Yield the samples of a file; raises DataError when it holds none that can be shown."""
    kind = kind_of(path)
    if kind is None:
        first = "" if fields_of(path) else "; its first row cannot be read, see that it is UTF-8"
        raise DataError(
            f"{path}: holds no samples (needs pairs, labels, rankings, trajectories or trees"
            f"{first}); name another file"
        )
    if kind in _TOKEN_ROWS:
        if decode is None:
            raise DataError(
                f"{path}: holds token ids and no tokenizer is known; name one with --tokenizer"
            )
        yield from _read_token_rows(path, kind, decode)
        return
    for each in load_rows(path, _ROWS[kind]):
        yield _text_sample(kind, each)


def _read_token_rows(path: Path, kind: str, decode: Decode) -> list[Sample]:
    """Read rows of tokens; raises DataError naming every line that is wrong."""
    samples: list[Sample] = []
    problems: list[Problem] = []
    for number, row in read_lines(path):
        place = Place(f"{path}:", str(number))
        if isinstance(row, Broken):
            problems.append(Problem(place, row.reason))
        elif not isinstance(row, dict):
            problems.append(Problem(place, f"is no object (needs a {kind}); correct the line"))
        else:
            named = {**row, "id": str(row.get("id", number))}
            try:
                samples.append(_TOKEN_ROWS[kind](named, decode))
            except ValidationError as error:
                problems.append(Problem(place, _explain(error)))
            except DataError as error:
                problems.append(Problem(place, str(error)))
    if problems:
        raise DataError(describe_problems(problems, max_shown=_MAX_SHOWN))
    return samples


def _explain(error: ValidationError) -> str:
    """Say in one sentence what a tree lacks; what the tree itself found wrong is one already."""
    first = error.errors()[0]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    name = ".".join(map(str, first["loc"]))
    return f'field "{name}": {first["msg"].lower()}; correct or drop the line'


def tree_sample(tree: TokenTree, decode: Decode, kind: str) -> Sample:
    """Return a token tree as text; labels stand at the leaves, in the order of its paths."""
    badges: dict[int, list[str]] = {}
    for index, leaf in enumerate(tree.leaves):
        names = _PAIR_SIDES if kind == "pair" and tree.n_paths == 2 else ()
        badges.setdefault(leaf, []).extend(
            [*names[index : index + 1], *(f"{n} {v[index]:g}" for n, v in tree.labels.items())]
        )
    nodes = [
        TextNode(_parts(node, decode), node.parent, tuple(badges.get(index, ())))
        for index, node in enumerate(tree.nodes)
    ]
    columns = tuple(f"{name} {value:g}" for name, value in tree.columns.items())
    return Sample(tree.id, kind, tuple(nodes), columns)


_PAIR_SIDES = ("chosen", "rejected")


def _parts(node: Node, decode: Decode) -> tuple[tuple[str, bool], ...]:
    """Cut a node where the mask changes and decode each part by itself."""
    cuts = [i for i in range(1, len(node.ids)) if node.scored[i] != node.scored[i - 1]]
    edges = [0, *cuts, len(node.ids)]
    return tuple(
        (decode(node.ids[start:end]), node.scored[start]) for start, end in pairwise(edges)
    )


def _ids(row: Record, name: str) -> tuple[int, ...]:
    value = row.get(name)
    if not isinstance(value, list) or not all(type(each) is int for each in value):
        raise DataError(
            f'field "{name}" is missing or no list of token ids (needs whole numbers); correct or '
            "drop the line"
        )
    return tuple(value)


def _spans(row: Record, n_tokens: int) -> list[tuple[int, int]]:
    value = row.get("spans")
    spans = [each for each in value if _is_span(each, n_tokens)] if isinstance(value, list) else []
    if not isinstance(value, list) or len(spans) < len(value):
        raise DataError(
            f'field "spans" is {str(value)[:80]} (needs pairs of places [start, end) within '
            f"{n_tokens} tokens); correct or drop the line"
        )
    return [(start, end) for start, end in spans]


def _is_span(value: object, n_tokens: int) -> bool:
    if not isinstance(value, list) or [type(place) for place in value] != [int, int]:
        return False
    start, end = value
    return bool(0 <= start <= end <= n_tokens)


def _tree_row(row: Record, decode: Decode) -> Sample:
    tree = tree_from_json(row)
    return tree_sample(tree, decode, "pair" if tree.n_paths == 2 else "tree")


def _pair_of_tokens(row: Record, decode: Decode) -> Sample:
    prompt = _ids(row, "prompt_ids")
    paths = [
        TokenPath(prompt + ids, (False,) * len(prompt) + (True,) * len(ids))
        for ids in (_ids(row, "chosen_ids"), _ids(row, "rejected_ids"))
    ]
    return tree_sample(TokenTree.from_paths(str(row["id"]), paths), decode, "pair")


def _trajectory_of_tokens(row: Record, decode: Decode) -> Sample:
    ids = _ids(row, "token_ids")
    scored = [False] * len(ids)
    for start, end in _spans(row, len(ids)):
        scored[start:end] = [True] * (end - start)
    node = Node(ids, tuple(scored), -1)
    names = ("outcome", "answer", "gold", "reward")
    badges = tuple(f"{name} {row[name]}" for name in names if row.get(name) is not None)
    return Sample(str(row["id"]), "trajectory", (TextNode(_parts(node, decode)),), badges)


def _text_sample(kind: str, row: Row) -> Sample:
    columns = tuple(f"{name} {value:g}" for name, value in row.columns.items())
    return Sample(row.id, kind, tuple(_text_nodes(row)), columns)


def _text_nodes(row: Row) -> Iterator[TextNode]:
    """Yield the nodes of a row of text: the prompt, then what follows it."""
    if isinstance(row, TrajectoryRow):
        reward = () if row.reward is None else (f"reward {row.reward:g}",)
        yield TextNode(_given(row.messages), -1, reward)
        return
    assert isinstance(row, PairRow | RankingRow | LabelledRow | TreeRow)
    yield TextNode(_given(row.prompt))
    if isinstance(row, PairRow):
        for name, side in (("chosen", row.chosen), ("rejected", row.rejected)):
            yield TextNode(_written(side), 0, (name,))
    elif isinstance(row, RankingRow):
        for index, completion in enumerate(row.completions):
            ranks = tuple(f"{name} {values[index]:g}" for name, values in row.labels.items())
            yield TextNode(_written(completion), 0, ranks)
    elif isinstance(row, LabelledRow):
        yield TextNode(_written(row.completion), 0, (f"label {row.label:g}",))
    else:
        ends = {leaf: index for index, leaf in enumerate(row.leaves)}
        for index, step in enumerate(row.steps):
            here = row.labels.items() if index in ends else ()
            labels = tuple(f"{name} {values[ends[index]]:g}" for name, values in here)
            yield TextNode(((step.text, step.is_scored),), step.parent + 1, labels)


def _given(text: Text) -> tuple[tuple[str, bool], ...]:
    if isinstance(text, str):
        return ((text, False),)
    return tuple((f"[{each.role}] {each.text}\n", each.role == "assistant") for each in text)


def _written(text: Text) -> tuple[tuple[str, bool], ...]:
    return ((text, True),) if isinstance(text, str) else _given(text)


_KINDS: Sequence[tuple[str, frozenset[str]]] = (
    ("token tree", frozenset({"nodes", "leaves"})),
    ("token pair", frozenset({"prompt_ids", "chosen_ids", "rejected_ids"})),
    ("token trajectory", frozenset({"token_ids", "spans"})),
    # The prompt of a pair may be what both of its sides begin with.
    ("pair", frozenset({"chosen", "rejected"})),
    ("search tree", frozenset({"prompt", "steps"})),
    # Completions alone are samples of a round, which nobody has judged.
    *(("ranking", frozenset({"prompt", "completions", by})) for by in RANKING_LABELS),
    ("label", frozenset({"prompt", "completion", "label"})),
    ("trajectory", frozenset({"messages"})),
)
_TOKEN_ROWS: Mapping[str, Callable[[Record, Decode], Sample]] = {
    "token tree": _tree_row,
    "token pair": _pair_of_tokens,
    "token trajectory": _trajectory_of_tokens,
}
_ROWS: Mapping[str, type[Row]] = {
    "pair": PairRow,
    "search tree": TreeRow,
    "ranking": RankingRow,
    "label": LabelledRow,
    "trajectory": TrajectoryRow,
}
