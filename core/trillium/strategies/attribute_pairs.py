"""`pair_by_attributes`: sample responses to prompts with attributes, grade them, pair by closeness.

A response's closeness is the mean over its attributes. A prompt becomes a pair of its closest and
its farthest response when they are far enough apart (UltraGen's second stage, with closeness where
that has a share of constraints met).
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trillium.errors import ConfigError
from trillium.generation.interface import SamplingConfig
from trillium.records import PairRow
from trillium.strategies.answers import Answers, Participant, open_answers
from trillium.strategies.attributes import (
    AttributeRow,
    Soft,
    ask_for_quality,
    ask_with_attributes,
    read_score,
    soft_closeness,
)
from trillium.strategies.prompts import as_question, make_pair

# Closer than this counts as met: within five per cent of a number, nine and a half of ten points.
_MET = 0.95


@dataclass(frozen=True)
class Graded:
    """Hold a response with the closeness of each attribute, and their mean."""

    text: str
    closeness: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Return the mean closeness."""
        return statistics.fmean(self.closeness.values())


@dataclass(frozen=True)
class AttributePairs:
    """Hold the pairs, what responses achieved by kind of attribute, and what was left out."""

    rows: list[PairRow]
    closeness: Mapping[str, float]
    met: Mapping[str, float]
    n_alike: int
    n_unreadable: int


def pair_by_attributes(
    rows: Sequence[AttributeRow],
    writer: Participant,
    judge: Participant | None,
    file: Path,
    *,
    sampling: SamplingConfig,
    min_gap: float,
    seed: int,
) -> AttributePairs:
    """Return one pair per prompt; `file` is what answers are kept in and taken from.

    Raises ConfigError when rows have soft attributes and there is no judge.
    """
    if judge is None and any(isinstance(a, Soft) for row in rows for a in row.attributes.values()):
        raise ConfigError(
            "attributes: some are soft and nobody scores them; name a judge with --judge"
        )
    questions = [ask_with_attributes(as_question(r.prompt), [*r.attributes.values()]) for r in rows]
    with open_answers(file, seed=seed) as answers:
        drawn = answers.draw(writer, questions, sampling)
        graded = [
            _grade(row, texts, judge, answers) for row, texts in zip(rows, drawn, strict=True)
        ]
    pairs = []
    for row, question, found in zip(rows, questions, graded, strict=True):
        ranked = sorted(found, key=lambda one: -one.mean)
        gap = ranked[0].mean - ranked[-1].mean if ranked else 0.0
        if gap > 0 and gap >= min_gap:
            pairs.append(_pair(row.id, question, ranked[0], ranked[-1]))
    every = [(row, one) for row, found in zip(rows, graded, strict=True) for one in found]
    by_kind: dict[str, list[float]] = {}
    for row, one in every:
        for name, value in one.closeness.items():
            by_kind.setdefault(row.attributes[name].kind, []).append(value)
    n_drawn = sum(map(len, drawn))
    return AttributePairs(
        rows=pairs,
        closeness={kind: statistics.fmean(values) for kind, values in by_kind.items()},
        met={kind: sum(v >= _MET for v in vs) / len(vs) for kind, vs in by_kind.items()},
        n_alike=len(rows) - len(pairs),
        n_unreadable=n_drawn - len(every),
    )


def _grade(
    row: AttributeRow, texts: Sequence[str], judge: Participant | None, answers: Answers
) -> list[Graded]:
    """Grade the responses to one prompt; those whose score cannot be read are left out."""
    found: list[dict[str, float] | None] = [{} for _ in texts]
    for name, attribute in row.attributes.items():
        values: list[float | None]
        if isinstance(attribute, Soft):
            assert judge is not None
            asked = [ask_for_quality(attribute.text, text) for text in texts]
            how = SamplingConfig(temperature=0.0, max_new_tokens=16)
            said = answers.draw(judge, asked, how)
            scores = [read_score(one[0]) for one in said]
            values = [None if s is None else soft_closeness(s, attribute.target) for s in scores]
        else:
            values = [attribute.closeness(text) for text in texts]
        for place, value in enumerate(values):
            known = found[place]
            found[place] = None if known is None or value is None else {**known, name: value}
    return [Graded(text, each) for text, each in zip(texts, found, strict=True) if each is not None]


def _pair(id: str, question: str, best: Graded, worst: Graded) -> PairRow:
    labels = {name: (value, worst.closeness[name]) for name, value in best.closeness.items()}
    return make_pair(
        id, question, best.text, worst.text, {"closeness": (best.mean, worst.mean), **labels}
    )
