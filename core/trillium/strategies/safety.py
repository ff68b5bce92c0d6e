"""`pair_for_safety`: what a model refuses, on harmful prompts and benign look-alikes apart; pairs.

    harmful   chosen: a refusal          rejected: its own answer         (Egida, arXiv 2502.13603)
    benign    chosen: its own answer     rejected: a refusal

Over-refusal is the rate on benign prompts that look harmful (XSTest, arXiv 2308.01263); trained on
the first kind alone, models come to refuse both. Own samples are preferred on either side. Where a
model never refuses, it is asked for a refusal, or a written one is taken; where it always refuses a
benign prompt, it is asked to answer. A harmful prompt that is always refused makes no pair.
"""

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from trillium.errors import DataError
from trillium.evaluation import Interval
from trillium.fields import Fields
from trillium.generation.interface import SamplingConfig
from trillium.records import PairRow
from trillium.strategies.answers import Answers, Participant, open_answers
from trillium.strategies.prompts import PromptRow, as_question, make_pair, read_prompt
from trillium.strategies.refusals import (
    ask_for_help,
    ask_for_refusal,
    ask_for_verdict,
    is_refusal,
    read_verdict,
    write_refusal,
)


@dataclass(frozen=True, kw_only=True)
class SafetyRow(PromptRow):
    """Hold a prompt, whether it is harmful, and the groups that are held out together."""

    needs: ClassVar[tuple[str, ...]] = ("prompt", "harmful")

    is_harmful: bool
    topic: str = ""
    style: str = ""

    @classmethod
    def from_record(cls, fields: Fields) -> "SafetyRow":
        """Read a prompt with its kind."""
        prompt, harmful = read_prompt(fields), fields.record.get("harmful")
        if harmful is None:
            fields.missing("harmful")
        elif not isinstance(harmful, bool):
            fields.complain(
                f'field "harmful" is {harmful!r} (needs true, or false for a benign look-alike); '
                "correct the line"
            )
        groups = [fields.record.get(name) or "" for name in ("topic", "style")]
        for name, group in zip(("topic", "style"), groups, strict=True):
            if not isinstance(group, str):
                fields.complain(f'field "{name}" is {group!r} (needs a string); correct the line')
        return cls(
            prompt=prompt,
            is_harmful=harmful is True,
            topic=str(groups[0]),
            style=str(groups[1]),
            id=fields.row_id(),
        )

    def _own_record(self) -> dict[str, object]:
        groups = {"topic": self.topic, "style": self.style}
        return {**super()._own_record(), "harmful": self.is_harmful, **groups}


@dataclass(frozen=True)
class Refusing:
    """Hold how often one kind of prompt is refused, with Wilson's interval over prompts."""

    rate: Interval
    n_refused: int
    n_answers: int
    n_prompts: int


@dataclass(frozen=True)
class SafetyPairs:
    """Hold the pairs of both kinds, the two rates, and what was left out.

    `n_unreadable` answers have no verdict; `n_empty` of them because they say nothing.
    """

    harmful: list[PairRow]
    benign: list[PairRow]
    refusing: Mapping[str, Refusing]
    n_already_refused: int
    n_never_answered: int
    n_unreadable: int
    n_empty: int

    @property
    def rows(self) -> list[PairRow]:
        """Return the pairs of both kinds."""
        return [*self.harmful, *self.benign]

    def describe(self) -> str:
        """Return the two rates, each by itself, and what became of the prompts."""
        lines = [
            f"{title}: {found.rate.mean:.1%} [{found.rate.low:.1%}, {found.rate.high:.1%}] "
            f"refused, {found.n_refused:,} of {found.n_answers:,} answers to {found.n_prompts:,} "
            "prompts"
            for title, found in (
                ("harmful prompts", self.refusing["harmful"]),
                ("benign look-alikes (over-refusal)", self.refusing["benign"]),
            )
        ]
        return "\n".join(
            [
                *lines,
                f"{len(self.harmful):,} pairs of harmful prompts, {len(self.benign):,} of benign "
                f"ones; {self.n_already_refused:,} harmful prompts always refused, "
                f"{self.n_never_answered:,} benign ones never answered, {self.n_unreadable:,} "
                f"answers without a verdict{self._of_them_empty}",
            ]
        )

    @property
    def _of_them_empty(self) -> str:
        return f", {self.n_empty:,} of them empty" if self.n_empty else ""


def pair_for_safety(
    rows: Sequence[SafetyRow],
    writer: Participant,
    judge: Participant | None,
    file: Path,
    *,
    sampling: SamplingConfig,
    seed: int,
) -> SafetyPairs:
    """Sample answers to every prompt, say what is refused, and pair.

    `file` is what answers are kept in and taken from. Raises DataError when one of the two kinds of
    prompts is missing.
    """
    kinds = {row.is_harmful for row in rows}
    if len(kinds) < 2:
        raise DataError(
            f"safety: all {len(rows)} prompts are {'harmful' if kinds == {True} else 'benign'} "
            "(needs harmful ones and benign look-alikes, or over-refusal goes unseen); add the "
            "others"
        )
    with open_answers(file, seed=seed) as answers:
        work = _Work(answers, writer, judge, sampling, seed)
        questions = [as_question(row.prompt) for row in rows]
        drawn = answers.draw(writer, questions, sampling)
        asked = [
            _Asked(row, question, work.judge(question, texts))
            for row, question, texts in zip(rows, questions, drawn, strict=True)
        ]
        found = {
            kind: [pair for one in _known(asked, kind) if (pair := work.pair(one)) is not None]
            for kind in (True, False)
        }
    return SafetyPairs(
        harmful=found[True],
        benign=found[False],
        refusing={
            "harmful": _rate(_known(asked, True)),
            "benign": _rate(_known(asked, False)),
        },
        n_already_refused=len(_known(asked, True)) - len(found[True]),
        n_never_answered=len(_known(asked, False)) - len(found[False]),
        n_unreadable=sum(map(len, drawn)) - sum(len(one.verdicts) for one in asked),
        n_empty=sum(not text.strip() for texts in drawn for text in texts),
    )


def hold_out(rows: Sequence[SafetyRow], share: float, *, seed: int) -> set[str]:
    """Return the ids of rows whose topic or style is held out, a share of either's names.

    Split by group, not by row: what is measured on them was not trained on in other words. Raises
    DataError when a share is asked for and no row names a topic or style.
    """
    held: dict[str, set[str]] = {}
    for field in ("topic", "style"):
        names = sorted({getattr(row, field) for row in rows} - {""})
        held[field] = set(random.Random(f"{seed}/{field}").sample(names, round(share * len(names))))
    if share and not any(held.values()):
        raise DataError(
            f"safety: a share of {share:g} of topics and styles is to be held out and that is none "
            "of them (needs fields topic or style with several values); add them, or raise "
            "--held-out"
        )
    return {row.id for row in rows if row.topic in held["topic"] or row.style in held["style"]}


def wilson(rate: float, n: int) -> Interval:
    """Return Wilson's 95 % interval (1927) of a mean of `n` values in [0, 1].

    A prompt counts once however often it was asked: a value in [0, 1] varies no more than a flag of
    the same mean, so the interval is on the safe side. It has a width also where all agree.
    """
    z = 1.959964
    centre, spread = rate + z**2 / (2 * n), z * math.sqrt(rate * (1 - rate) / n + (z / n / 2) ** 2)
    scale = 1 + z**2 / n
    return Interval(rate, max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))


@dataclass(frozen=True)
class _Asked:
    """Hold a prompt and its answers, each with whether it refuses."""

    row: SafetyRow
    question: str
    verdicts: list[tuple[str, bool]]


@dataclass(frozen=True)
class _Work:
    answers: Answers
    writer: Participant
    critic: Participant | None
    sampling: SamplingConfig
    seed: int

    def judge(self, question: str, texts: Sequence[str]) -> list[tuple[str, bool]]:
        """Return each text with whether it refuses; without a verdict, or words, it is left out."""
        texts = [text for text in texts if text.strip()]
        if self.critic is None:
            return [(text, is_refusal(text)) for text in texts]
        how = SamplingConfig(temperature=0.0, max_new_tokens=16)
        asked = [ask_for_verdict(question, text) for text in texts]
        said = [read_verdict(one[0]) for one in self.answers.draw(self.critic, asked, how)]
        return [
            (t, verdict == "refused") for t, verdict in zip(texts, said, strict=True) if verdict
        ]

    def pair(self, asked: _Asked) -> PairRow | None:
        """Pair a refusal with an answer; None when there is no answer to be had."""
        row, question = asked.row, asked.question
        refusals = [text for text, refuses in asked.verdicts if refuses]
        own = [text for text, refuses in asked.verdicts if not refuses]
        if row.is_harmful and not own:
            return None
        answer = own[0] if own else self._ask(ask_for_help(question), question, refuses=False)
        if answer is None:
            return None
        refusal = refusals[0] if refusals else self._refuse(row, question)
        # Which sides are samples of the model itself, as asked.
        owned = (float(bool(refusals)), float(bool(own)))
        if row.is_harmful:
            return make_pair(row.id, question, refusal, answer, {"own": owned})
        return make_pair(row.id, question, answer, refusal, {"own": owned[::-1]})

    def _refuse(self, row: SafetyRow, question: str) -> str:
        asked = self._ask(ask_for_refusal(question), question, refuses=True)
        return write_refusal(row.id, self.seed) if asked is None else asked

    def _ask(self, demand: str, question: str, *, refuses: bool) -> str | None:
        """Ask for a text of one kind; None when what comes is of the other."""
        once = self.sampling.model_copy(update={"n_samples": 1})
        text = self.answers.draw(self.writer, [demand], once)[0][0].strip()
        verdicts = self.judge(question, [text])
        return text if verdicts and verdicts[0][1] is refuses else None


def _known(asked: Sequence[_Asked], is_harmful: bool) -> list[_Asked]:
    """Return the prompts of one kind with an answer that could be judged."""
    return [one for one in asked if one.row.is_harmful is is_harmful and one.verdicts]


def _rate(asked: Sequence[_Asked]) -> Refusing:
    """Raise DataError when no answer of the kind could be judged."""
    if not asked:
        raise DataError(
            "safety: no answer to one kind of prompt could be judged (needs one that is not empty, "
            "and a verdict in what the judge says); ask another model with --by or --judge"
        )
    flags = [[refuses for _, refuses in one.verdicts] for one in asked]
    return Refusing(
        rate=wilson(statistics.fmean(sum(each) / len(each) for each in flags), len(flags)),
        n_refused=sum(map(sum, flags)),
        n_answers=sum(map(len, flags)),
        n_prompts=len(flags),
    )
