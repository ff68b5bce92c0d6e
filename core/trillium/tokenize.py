"""Turn rows into token trees, with a report of everything that was dropped, cut or repaired.

    data = tokenize_pairs(load_rows(Path("pairs.jsonl"), PairRow), tokenizer, TokenizeConfig())
    data.trees, data.report

Invariants: every path of every tree has at least one scored token, a reply's mask includes exactly
one stop token, and prompt tokens are never scored. Masks say what counts in the loss; who attends
whom is the layout's business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedTokenizerBase

from trillium.encoding import EncodedRow, Encoder, Truncation, truncate
from trillium.errors import DataError
from trillium.fields import Text
from trillium.records import LabelledRow, PairRow, RankingRow, TrajectoryRow
from trillium.rendering import ChatTemplate, Rendered, ScoredTurns, Unusable
from trillium.row_rendering import RowRenderer, Sample
from trillium.search_records import TreeRow
from trillium.trees import TokenPath, TokenTree

_MAX_SHOWN = 20


class TokenizeConfig(BaseModel):
    """Choose what of a row is kept and what of it is scored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_length: int | None = Field(
        default=1024, ge=2, description="longest path in tokens; null: any"
    )
    truncation: Truncation = Field(
        default="drop",
        description="a longer path: drop its row, keep_start (cut replies at their end) or "
        "keep_end (cut prompts at their start)",
    )
    scored_turns: ScoredTurns = Field(
        default="all", description="assistant turns of a completion that count"
    )
    add_eos: bool = Field(
        default=True, description="end replies with the stop token; false for steps"
    )
    on_prefix_violation: Literal["refuse", "repair"] = Field(
        default="refuse",
        description="template that rewrites earlier turns: stop, or score what the whole shows",
    )


@dataclass(frozen=True)
class TokenizeReport:
    """Count what became of the rows.

    `dropped` names the rows by reason. A prefix violation is a row in which the text that a server
    would send for a turn, or the turn, is not a prefix of the whole conversation; a merged boundary
    is one where a token straddles the end of the prompt. `n_scored_tokens` sums over paths,
    `n_tokens` over trees, where shared prefixes count once.
    """

    n_rows: int
    n_kept: int
    n_truncated: int
    n_prefix_violations: int
    n_merged_boundaries: int
    n_scored_tokens: int
    n_tokens: int
    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def n_dropped(self) -> dict[str, int]:
        """Count the dropped rows by reason."""
        return {reason: len(ids) for reason, ids in self.dropped.items()}

    def summary(self) -> str:
        """Say it all in one line."""
        dropped = ", ".join(f"{count} {reason}" for reason, count in self.n_dropped.items())
        return (
            f"{self.n_kept:,} of {self.n_rows:,} rows kept"
            f"{f' (dropped: {dropped})' if dropped else ''}, {self.n_truncated:,} truncated, "
            f"{self.n_prefix_violations:,} with prefix violations, "
            f"{self.n_merged_boundaries:,} with merged boundaries; "
            f"{self.n_tokens:,} tokens, {self.n_scored_tokens:,} scored"
        )


@dataclass(frozen=True)
class TokenizedDataset:
    """Hold the trees of the rows that were kept, in their order, and what became of the rest."""

    trees: tuple[TokenTree, ...]
    report: TokenizeReport


def tokenize_pairs(
    rows: Sequence[PairRow], tokenizer: PreTrainedTokenizerBase, config: TokenizeConfig
) -> TokenizedDataset:
    """Make trees with the paths chosen, rejected; pairs of equal tokens are dropped and counted."""
    samples = [Sample(row, row.prompt, (row.chosen, row.rejected), row.labels) for row in rows]
    return _tokenize(samples, tokenizer, config)


def tokenize_labelled(
    rows: Sequence[LabelledRow], tokenizer: PreTrainedTokenizerBase, config: TokenizeConfig
) -> TokenizedDataset:
    """Make trees of one path with the label `label`."""
    samples = [Sample(row, row.prompt, (row.completion,), {"label": (row.label,)}) for row in rows]
    return _tokenize(samples, tokenizer, config)


def tokenize_rankings(
    rows: Sequence[RankingRow], tokenizer: PreTrainedTokenizerBase, config: TokenizeConfig
) -> TokenizedDataset:
    """Make trees with one path per response, in the row's order, and its labels."""
    samples = [Sample(row, row.prompt, row.completions, row.labels) for row in rows]
    return _tokenize(samples, tokenizer, config)


def tokenize_trajectories(
    rows: Sequence[TrajectoryRow], tokenizer: PreTrainedTokenizerBase, config: TokenizeConfig
) -> TokenizedDataset:
    """Make trees of one path whose mask has holes for what tools and users said."""
    samples = []
    for row in rows:
        first = next(i for i, message in enumerate(row.messages) if message.role == "assistant")
        labels = {} if row.reward is None else {"reward": (row.reward,)}
        samples.append(Sample(row, row.messages[:first], (row.messages[first:],), labels))
    return _tokenize(samples, tokenizer, config)


def tokenize_trees(
    rows: Sequence[TreeRow], tokenizer: PreTrainedTokenizerBase, config: TokenizeConfig
) -> TokenizedDataset:
    """Make the trees of search rows; steps that tokenise alike are shared."""
    samples = [Sample(row, row.prompt, (), row.labels) for row in rows]
    return _tokenize(samples, tokenizer, config)


def tokenize_prompts(
    prompts: Sequence[Text], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[int, ...]]:
    """Tokenise what a model is given to write the next reply: strings or conversations."""
    encoder = Encoder(tokenizer)
    if all(isinstance(prompt, str) for prompt in prompts):
        return encoder.encode_texts([str(prompt) for prompt in prompts], is_plain=True)
    template = ChatTemplate(tokenizer)
    rendered = [
        [Rendered(prompt, (), is_plain=True)]
        if isinstance(prompt, str)
        else [Rendered(template.render_prompt(prompt), ())]
        for prompt in prompts
    ]
    return [row.paths[0].ids for row in encoder.encode(rendered)]


def _tokenize(
    samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase, config: TokenizeConfig
) -> TokenizedDataset:
    ledger = _Ledger(len(samples))
    renderer = RowRenderer(tokenizer, turns=config.scored_turns, add_eos=config.add_eos)
    kept: list[Sample] = []
    rendered: list[list[Rendered]] = []
    for sample in samples:
        try:
            paths = renderer.render(sample)
        except Unusable as error:
            ledger.drop(sample, error.reason)
        except DataError as error:
            ledger.problems.append(f"row {sample.row.id}: {error}")
        else:
            kept.append(sample)
            rendered.append(paths)
            ledger.violations += [sample.row.id] if any(p.n_violations for p in paths) else []
    ledger.check_violations(config)
    encoded = Encoder(tokenizer).encode(rendered)
    columns = _shared_names([sample.row.columns for sample in kept])
    labels = _shared_names([sample.labels for sample in kept])
    trees: list[TokenTree] = []
    for sample, row in zip(kept, encoded, strict=True):
        fitted = _fit(sample, row, config, ledger, bos_id=tokenizer.bos_token_id)
        if fitted is None:
            continue
        try:
            trees.append(_grow(sample, fitted, labels, columns))
        except DataError as error:
            ledger.problems.append(str(error))
    ledger.check_problems()
    return TokenizedDataset(tuple(trees), ledger.report(trees))


def _fit(
    sample: Sample,
    row: EncodedRow,
    config: TokenizeConfig,
    ledger: "_Ledger",
    *,
    bos_id: int | None,
) -> tuple[TokenPath, ...] | None:
    for index, path in enumerate(row.paths):
        if not path.n_scored:
            ledger.problems.append(
                f"row {sample.row.id}: path {index} has 0 scored of {len(path.ids)} tokens (needs "
                "at least one); drop the row, or check scored_turns and add_eos"
            )
            return None
    paths: tuple[TokenPath, ...] | None = row.paths
    if config.max_length is not None:
        paths = truncate(
            row.paths,
            max_length=config.max_length,
            policy=config.truncation,
            keep_first=row.paths[0].ids[0] == bos_id,
        )
    if paths is None:
        ledger.drop(sample, "too long")
        return None
    if isinstance(sample.row, PairRow) and paths[0] == paths[1]:
        ledger.drop(sample, "identical")
        return None
    ledger.n_truncated += paths != row.paths
    ledger.n_merged += row.is_merged
    return paths


def _grow(
    sample: Sample, paths: Sequence[TokenPath], labels: Sequence[str], columns: Sequence[str]
) -> TokenTree:
    return TokenTree.from_paths(
        sample.row.id,
        paths,
        {name: sample.labels[name] for name in labels},
        {name: sample.row.columns[name] for name in columns},
    )


def _shared_names(mappings: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the names that every row has; a column with gaps cannot be a tensor."""
    first = mappings[0] if mappings else {}
    return [name for name in first if all(name in mapping for mapping in mappings)]


class _Ledger:
    """Collect what happens to rows until the report is written."""

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows
        self.n_truncated = 0
        self.n_merged = 0
        self.dropped: dict[str, list[str]] = {}
        self.violations: list[str] = []
        self.problems: list[str] = []

    def drop(self, sample: Sample, reason: str) -> None:
        self.dropped.setdefault(reason, []).append(sample.row.id)

    def check_violations(self, config: TokenizeConfig) -> None:
        if self.violations and config.on_prefix_violation == "refuse":
            self.problems.append(
                f"chat template: in {len(self.violations)} of {self.n_rows} rows the text before a "
                "scored turn, or the turn itself, is rendered differently when the conversation "
                f"goes on (first: row {self.violations[0]}); set on_prefix_violation=repair to "
                "score what the whole conversation shows, or use another template"
            )

    def check_problems(self) -> None:
        if self.problems:
            hidden = len(self.problems) - _MAX_SHOWN
            rest = [f"... and {hidden} more problems"] if hidden > 0 else []
            raise DataError("\n".join(self.problems[:_MAX_SHOWN] + rest))

    def report(self, trees: Sequence[TokenTree]) -> TokenizeReport:
        if not trees:
            reasons = ", ".join(f"{len(ids)} {reason}" for reason, ids in self.dropped.items())
            raise DataError(
                f"tokenize: none of {self.n_rows} rows is left ({reasons or 'there were none'}); "
                "raise max_length, change truncation, or check the rows"
            )
        paths = [tree.path(index) for tree in trees for index in range(tree.n_paths)]
        return TokenizeReport(
            n_rows=self.n_rows,
            n_kept=len(trees),
            n_truncated=self.n_truncated,
            n_prefix_violations=len(self.violations),
            n_merged_boundaries=self.n_merged,
            n_scored_tokens=sum(path.n_scored for path in paths),
            n_tokens=sum(tree.n_tokens for tree in trees),
            dropped={reason: tuple(ids) for reason, ids in self.dropped.items()},
        )
