"""Rationales: ask why the chosen response is better, for `rationale_dpo` (arXiv 2407.14477)."""

from collections.abc import Sequence
from pathlib import Path

from trillium.generation.interface import SamplingConfig
from trillium.records import PairRow
from trillium.strategies.answers import Participant, open_answers
from trillium.strategies.asking import as_text


def ask_for_rationale(prompt: str, chosen: str, rejected: str) -> str:
    """Return the question; general reasons teach more than detailed ones, as the paper found."""
    return (
        "Two responses to a request were compared and the first was preferred. Say in two or three "
        "general sentences why it is better than the second.\n"
        f"\n[Request]\n{prompt}\n\n[Preferred]\n{chosen}\n\n[Other]\n{rejected}\n"
    )


def enrich_with_rationales(
    rows: Sequence[PairRow],
    asked: Participant,
    answers: Path,
    *,
    sampling: SamplingConfig,
    seed: int,
) -> list[dict[str, object]]:
    """Return the rows as records with a field `rationale`; rows without an answer are left out.

    `answers` is the file that answers are kept in and taken from, so a kill costs one batch;
    another model, question, seed or way of sampling is asked anew.
    """
    with open_answers(answers, seed=seed) as kept:
        questions = [
            ask_for_rationale(*(as_text(t) for t in (row.prompt, row.chosen, row.rejected)))
            for row in rows
        ]
        keys = [
            kept.key(asked.name, question, row.id, sampling)
            for row, question in zip(rows, questions, strict=True)
        ]
        replies = kept.ask(asked.asker, keys, questions, sampling)
    return [
        {**row.to_record(), "rationale": reply.strip()}
        for row, reply in zip(rows, replies, strict=True)
        if reply.strip()
    ]
