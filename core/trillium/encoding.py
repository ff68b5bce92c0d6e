"""Text with spans to token paths: batched, boundary-safe, and cut to a length without silence.

A character boundary becomes a token boundary by tokenising the text before it and taking the
tokens it has in common with the whole. A token that straddles a boundary belongs to where it ends.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from trillium.rendering import Rendered, common_length
from trillium.tokenize_config import Truncation
from trillium.trees import TokenPath


@dataclass(frozen=True)
class EncodedRow:
    """Hold the paths of one row and whether a token straddles the end of its prompt.

    `steps` count the scored tokens of each span of each path, a scored prompt's before them.
    """

    paths: tuple[TokenPath, ...]
    is_merged: bool
    steps: tuple[tuple[int, ...], ...]


class Encoder:
    """Tokenise many texts at once; equal texts are tokenised once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Find out what the tokenizer puts before plain text."""
        self._tokenizer = tokenizer
        self._ids: dict[str, list[int]] = {}
        bos = tokenizer.bos_token_id
        adds_bos = bos is not None and bos in tokenizer("").input_ids
        self._prefix = [bos] if adds_bos else []

    def encode(self, rows: Sequence[Sequence[Rendered]]) -> list[EncodedRow]:
        """Turn the rendered paths of each row into token paths."""
        texts = (text for row in rows for path in row for text in _boundary_texts(path))
        self._learn(texts)
        encoded = [self._encode_row(row) for row in rows]
        self._ids = {}
        return encoded

    def encode_texts(self, texts: Sequence[str], *, is_plain: bool) -> list[tuple[int, ...]]:
        """Tokenise whole texts; plain ones get what the tokenizer puts before text."""
        rows = [[Rendered(text, (), is_plain=is_plain)] for text in texts]
        return [row.paths[0].ids for row in self.encode(rows)]

    def _learn(self, texts: Iterable[str]) -> None:
        unique = list(dict.fromkeys(texts))
        if not unique:
            return
        batch = self._tokenizer(
            unique, add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        self._ids = dict(zip(unique, batch["input_ids"], strict=True))

    def _encode_row(self, row: Sequence[Rendered]) -> EncodedRow:
        spans = [[self._token_span(path, span) for span in path.spans] for path in row]
        # Replies to one prompt start at the same token, or their sums would differ in context.
        starts = {path.text[: path.spans[0][0]] for path in row if path.spans}
        if len(starts) == 1:
            first = min(path[0][0] for path in spans if path)
            spans = [[(first, path[0][1]), *path[1:]] if path else [] for path in spans]
        is_merged = any(
            own and own[0][0] < len(self._ids[path.text[: path.spans[0][0]]])
            for path, own in zip(row, spans, strict=True)
        )
        spans = [
            [(0, own[0][0]), *own] if path.scores_prompt and own else own
            for path, own in zip(row, spans, strict=True)
        ]
        paths = tuple(self._path(path, own) for path, own in zip(row, spans, strict=True))
        steps = tuple(
            _count_scored(encoded, own, skipped=len(encoded.ids) - len(self._ids[path.text]))
            for path, own, encoded in zip(row, spans, paths, strict=True)
        )
        return EncodedRow(paths, is_merged, steps)

    def _token_span(self, path: Rendered, span: tuple[int, int]) -> tuple[int, int]:
        whole = self._ids[path.text]
        start, end = (
            len(whole)
            if boundary == len(path.text)
            else common_length(self._ids[path.text[:boundary]], whole)
            for boundary in span
        )
        return start, end

    def _path(self, path: Rendered, spans: Sequence[tuple[int, int]]) -> TokenPath:
        ids = self._ids[path.text]
        prefix = self._prefix if path.is_plain and ids[:1] != self._prefix else []
        scored = [False] * len(ids)
        for start, end in spans:
            scored[start:end] = [True] * (end - start)
        scored = [False] * len(prefix) + scored
        # Nothing predicts the very first token.
        scored[:1] = [False] * len(scored[:1])
        return TokenPath((*prefix, *ids), tuple(scored))


def truncate(
    paths: Sequence[TokenPath],
    *,
    max_length: int,
    policy: Truncation,
    keep_first: bool,
    n_prompt: Sequence[int] | None = None,
) -> tuple[TokenPath, ...] | None:
    """Cut the paths of one row to `max_length` tokens; None when the policy drops the row.

    `keep_start` cuts each path's end. `keep_end` cuts the start of what comes before the reply,
    equally in all paths so that they keep one prompt, and leaves replies whole; `keep_first` saves
    the first token (BOS). A reply begins at the first scored token, or after as many as `n_prompt`
    says belong to the prompt. A row is dropped when a path would lose its whole reply.
    """
    excess = max(len(path.ids) for path in paths) - max_length
    if excess <= 0:
        return tuple(paths)
    n_before = n_prompt or [0] * len(paths)
    starts = [path.scored.index(True) + n for path, n in zip(paths, n_before, strict=True)]
    if policy == "keep_start":
        cut = tuple(TokenPath(p.ids[:max_length], p.scored[:max_length]) for p in paths)
        has_replies = all(any(p.scored[start:]) for p, start in zip(cut, starts, strict=True))
        return cut if has_replies else None
    # One context token stays, so that the first scored token is predicted from something.
    n_shared = min(common_length(paths[0].ids, path.ids) for path in paths)
    removable = min(n_shared, *starts) - 1
    if policy == "drop" or excess > removable:
        return None
    kept = 1 if keep_first else 0
    return tuple(
        TokenPath(
            path.ids[:kept] + path.ids[excess + kept :],
            # Nothing predicts what is now the very first token.
            (False, *(path.scored[:kept] + path.scored[excess + kept :])[1:]),
        )
        for path in paths
    )


def _count_scored(
    path: TokenPath, spans: Sequence[tuple[int, int]], *, skipped: int
) -> tuple[int, ...]:
    """Return the scored tokens in each span; `skipped` tokens stand in front of the text.

    What two spans share counts in the first.
    """
    counts, done = [], 0
    for start, end in spans:
        counts.append(sum(path.scored[skipped + max(start, done) : skipped + end]))
        done = max(done, end)
    return tuple(counts)


def _boundary_texts(path: Rendered) -> Iterable[str]:
    yield path.text
    for span in path.spans:
        for boundary in span:
            if boundary < len(path.text):
                yield path.text[:boundary]
