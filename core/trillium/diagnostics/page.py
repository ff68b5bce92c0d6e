"""The report of a diagnosis: findings, how CHES is spread, the worst pairs, the course of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from trillium.diagnostics.findings import Finding, Rows, column
from trillium.report import (
    Bars,
    BarSeries,
    Headline,
    ReportData,
    Sample,
    SamplePair,
    SamplePairs,
    Section,
    Table,
)
from trillium.report.standard import training_curves
from trillium.training.journal import read_metrics
from trillium.trees import TokenTree

_N_SHOWN = 6
_N_BINS = 12


def make_page(
    name: str,
    findings: Sequence[Finding],
    rows: Rows,
    trees: Sequence[TokenTree],
    tokenizer: PreTrainedTokenizerBase,
    *,
    metrics: Sequence[Path],
    notes: str,
) -> ReportData:
    """Return the report of one diagnosis."""
    alerts = [finding for finding in findings if finding.state == "alert"]
    sections = [
        Section("Findings", (findings_table(findings),), intro=f"Rows: {notes}."),
        Section(
            "CHES",
            (_spread(rows), _worst(rows, trees, tokenizer)),
            intro="A high score means that training on the pair pushes its own chosen response "
            "down (arXiv 2410.08847).",
        ),
    ]
    for path in metrics:
        curves = training_curves(read_metrics(path.parent))
        if curves:
            sections.append(Section(f"Training: {path.parent.name}", curves))
    return ReportData(
        title=f"Diagnosis of {name}",
        subtitle=f"{len(rows):,} pairs measured; every threshold with where it is from.",
        headlines=(
            Headline("alerts", str(len(alerts)), f"of {len(findings)} figures"),
            *(Headline(alert.topic, f"{alert.value:.3g}", detail=alert.figure) for alert in alerts),
        )[:5],
        sections=tuple(sections),
        footer=f"trillium diagnose {name}",
    )


def findings_table(findings: Sequence[Finding]) -> Table:
    """Return one row per figure."""
    return Table(
        "What was found",
        ("state", "topic", "figure", "value", "threshold", "source", "advice"),
        tuple(
            (
                finding.state,
                finding.topic,
                finding.figure,
                None if finding.state == "unknown" else finding.value,
                finding.threshold,
                finding.source,
                finding.advice if finding.state != "fine" else "",
            )
            for finding in findings
        ),
    )


def _spread(rows: Rows) -> Bars:
    scores = column(rows, "ches_per_token")
    low, high = float(scores.min()), float(scores.max())
    counts = torch.histc(scores, bins=_N_BINS, min=low, max=high)
    width = (high - low) / _N_BINS
    middles = [low + (place + 0.5) * width for place in range(_N_BINS)]
    return Bars(
        "CHES per token over the pairs",
        "pairs",
        tuple(f"{middle:.3g}" for middle in middles),
        (BarSeries("pairs", tuple(counts.tolist())),),
        note="Each bar is named by its middle.",
    )


def _worst(
    rows: Rows, trees: Sequence[TokenTree], tokenizer: PreTrainedTokenizerBase
) -> SamplePairs:
    order = torch.argsort(column(rows, "ches_per_token"), descending=True, stable=True)
    pairs = []
    for place in order[:_N_SHOWN].tolist():
        row, tree = rows[place], trees[place]
        said = f"CHES per token {row['ches_per_token']:.4g}"
        texts = [_texts(tree, index, tokenizer) for index in (0, 1)]
        pairs.append(
            SamplePair(
                name=f"{tree.id}: {said}",
                prompt=texts[0][0],
                left=Sample(texts[0][1], _change(row, "chosen")),
                right=Sample(texts[1][1], _change(row, "rejected")),
            )
        )
    return SamplePairs("Pairs with the highest scores", "chosen", "rejected", tuple(pairs))


def _texts(tree: TokenTree, index: int, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    path = tree.path(index)
    start = path.scored.index(True)
    return str(tokenizer.decode(list(path.ids[:start]))), str(
        tokenizer.decode(list(path.ids[start:]))
    )


def _change(row: Mapping[str, float], side: str) -> str:
    if f"policy_{side}" not in row:
        return f"log-probability {row[f'reference_{side}']:.1f} nats"
    change = row[f"policy_{side}"] - row[f"reference_{side}"]
    return f"log-probability changed by {change:+.2f} nats"
