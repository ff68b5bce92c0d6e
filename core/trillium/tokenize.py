"""Turn rows into token trees, with a report of everything that was dropped, cut or repaired.

    data = tokenize_pairs(load_rows(Path("pairs.jsonl"), PairRow), tokenizer, TokenizeConfig())
    data.trees, data.report

Invariants: every path of every tree has at least one scored token, a reply's mask includes exactly
one stop token, and prompt tokens are never scored. Masks say what counts in the loss; who attends
whom is the layout's business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from trillium.encoding import EncodedRow, Encoder, truncate
from trillium.errors import DataError
from trillium.fields import Text
from trillium.record_texts import Reply
from trillium.records import (
    CompletionRow,
    LabelledRow,
    PairRow,
    RankingRow,
    TrajectoryRow,
)
from trillium.rendering import ChatTemplate, Rendered
from trillium.row_rendering import RowRenderer, Sample
from trillium.search_records import TreeRow
from trillium.tokenize_config import TokenizeConfig, Truncation
from trillium.tokenize_report import TOO_LONG, Ledger, TokenizeReport
from trillium.trees import TokenPath, TokenTree
from trillium.turn_spans import Unusable


@dataclass(frozen=True)
class TokenizedDataset:
    """Hold the trees of the rows that were kept, in their order, and what became of the rest."""

    trees: tuple[TokenTree, ...]
    report: TokenizeReport


def tokenize_pairs(
    rows: Sequence[PairRow],
    tokenizer: PreTrainedTokenizerBase,
    config: TokenizeConfig,
    *,
    further: Sequence[str] = (),
    scores_prompt: bool = False,
) -> TokenizedDataset:
    """Make trees with the paths chosen, rejected, and those of the row's replies `further` names.

    Pairs of equal tokens are dropped and counted. Labels are those of pairs, so they are left out
    where a tree has further paths. `scores_prompt`: prompts count too, each path's first step.
    """
    samples = [
        Sample(
            row,
            (
                Reply(row.prompt, row.chosen),
                Reply(
                    row.prompt if row.rejected_prompt is None else row.rejected_prompt,
                    row.rejected,
                ),
                *(row.further[name] for name in further),
            ),
            {} if further else row.labels,
            scores_prompt,
        )
        for row in rows
    ]
    return _tokenize(samples, tokenizer, config)


def tokenize_completions(
    rows: Sequence[CompletionRow], tokenizer: PreTrainedTokenizerBase, config: TokenizeConfig
) -> TokenizedDataset:
    """Make trees of one path without a label."""
    samples = [Sample(row, (Reply(row.prompt, row.completion),), {}) for row in rows]
    return _tokenize(samples, tokenizer, config)


def tokenize_labelled(
    rows: Sequence[LabelledRow], tokenizer: PreTrainedTokenizerBase, config: TokenizeConfig
) -> TokenizedDataset:
    """Make trees of one path with the label `label`."""
    samples = [
        Sample(row, (Reply(row.prompt, row.completion),), {"label": (row.label,)}) for row in rows
    ]
    return _tokenize(samples, tokenizer, config)


def tokenize_rankings(
    rows: Sequence[RankingRow], tokenizer: PreTrainedTokenizerBase, config: TokenizeConfig
) -> TokenizedDataset:
    """Make trees with one path per response, in the row's order, and its labels."""
    samples = [
        Sample(row, [Reply(row.prompt, each) for each in row.completions], row.labels)
        for row in rows
    ]
    return _tokenize(samples, tokenizer, config)


def tokenize_trajectories(
    rows: Sequence[TrajectoryRow], tokenizer: PreTrainedTokenizerBase, config: TokenizeConfig
) -> TokenizedDataset:
    """Make trees of one path whose mask has holes for what tools and users said.

    Its steps are the scored turns.
    """
    samples = []
    for row in rows:
        first = next(i for i, message in enumerate(row.messages) if message.role == "assistant")
        labels = {} if row.reward is None else {"reward": (row.reward,)}
        samples.append(Sample(row, (Reply(row.messages[:first], row.messages[first:]),), labels))
    return _tokenize(samples, tokenizer, config)


def tokenize_trees(
    rows: Sequence[TreeRow], tokenizer: PreTrainedTokenizerBase, config: TokenizeConfig
) -> TokenizedDataset:
    """Make the trees of search rows; steps that tokenise alike are shared."""
    samples = [Sample(row, (), row.labels) for row in rows]
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
    ledger = Ledger(len(samples))
    renderer = RowRenderer(tokenizer, turns=config.scored_turns, add_eos=config.add_eos)
    kept: list[Sample] = []
    rendered: list[list[Rendered]] = []
    for sample in samples:
        try:
            paths = renderer.render(sample)
        except Unusable as error:
            ledger.drop(sample.row, error.reason)
        except DataError as error:
            ledger.complain(sample.row, str(error))
        else:
            kept.append(sample)
            rendered.append(paths)
            ledger.violations += (
                [str(sample.row.place)] if any(p.n_violations for p in paths) else []
            )
    if config.on_prefix_violation == "refuse":
        ledger.refuse_violations()
    encoded = Encoder(tokenizer).encode(rendered)
    columns = _shared_names([sample.row.columns for sample in kept])
    labels = _shared_names([sample.labels for sample in kept])
    trees: list[TokenTree] = []
    for sample, row in zip(kept, encoded, strict=True):
        fitted = _fit(sample, row, config, ledger, tokenizer)
        if fitted is None:
            continue
        steps = _cut_steps(row.steps, fitted, config.truncation) if sample.has_steps else ()
        try:
            trees.append(_grow(sample, fitted, labels, columns, steps))
        except DataError as error:
            ledger.complain(sample.row, str(error))
    ledger.check_problems()
    return TokenizedDataset(tuple(trees), ledger.report(trees))


def _fit(
    sample: Sample,
    row: EncodedRow,
    config: TokenizeConfig,
    ledger: "Ledger",
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[TokenPath, ...] | None:
    for index, path in enumerate(row.paths):
        if not path.n_scored:
            ledger.complain(
                sample.row,
                f"path {index} has 0 scored of {len(path.ids)} tokens (needs at least one); drop "
                "the row, or check scored_turns and add_eos",
            )
            return None
    whole = _share_start(sample, row.paths, tokenizer)
    paths: tuple[TokenPath, ...] | None = whole
    if config.max_length is not None:
        paths = truncate(
            whole,
            max_length=config.max_length,
            policy=config.truncation,
            keep_first=whole[0].ids[0] == tokenizer.bos_token_id or whole != row.paths,
            n_prompt=[counts[0] for counts in row.steps] if sample.scores_prompt else None,
        )
    if paths is None:
        ledger.drop(sample.row, TOO_LONG)
        return None
    if isinstance(sample.row, PairRow) and paths[0] == paths[1]:
        ledger.drop(sample.row, "identical")
        return None
    ledger.n_truncated += paths != whole
    ledger.n_merged += row.is_merged
    return paths


def _share_start(
    sample: Sample, paths: tuple[TokenPath, ...], tokenizer: PreTrainedTokenizerBase
) -> tuple[TokenPath, ...]:
    """Put BOS, else EOS, before replies to different prompts that begin differently.

    The paths of a tree share at least their first token.
    """
    start = tokenizer.bos_token_id
    start = tokenizer.eos_token_id if start is None else start
    has_one_prompt = all(reply.prompt == sample.replies[0].prompt for reply in sample.replies)
    if has_one_prompt or start is None or len({path.ids[0] for path in paths}) == 1:
        return paths
    return tuple(TokenPath((start, *path.ids), (False, *path.scored)) for path in paths)


def _cut_steps(
    steps: Sequence[tuple[int, ...]], paths: Sequence[TokenPath], truncation: Truncation
) -> tuple[tuple[int, ...], ...]:
    """Shorten steps to the scored tokens that truncation left: the last ones, or the first."""
    order = -1 if truncation == "keep_end" else 1
    cut = []
    for counts, path in zip(steps, paths, strict=True):
        left, kept = path.n_scored, []
        for count in counts[::order]:
            kept.append(min(count, left))
            left -= kept[-1]
        cut.append(tuple(kept[::order]))
    return tuple(cut)


def _grow(
    sample: Sample,
    paths: Sequence[TokenPath],
    labels: Sequence[str],
    columns: Sequence[str],
    steps: tuple[tuple[int, ...], ...],
) -> TokenTree:
    return TokenTree.from_paths(
        sample.row.id,
        paths,
        {name: sample.labels[name] for name in labels},
        {name: sample.row.columns[name] for name in columns},
        steps,
    )


def _shared_names(mappings: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the names that every row has; a column with gaps cannot be a tensor."""
    first = mappings[0] if mappings else {}
    return [name for name in first if all(name in mapping for mapping in mappings)]
