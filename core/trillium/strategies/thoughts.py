"""`pair_by_thoughts`: sample thoughts with responses, judge the responses alone, pair the wholes.

Thought preference optimisation (arXiv 2410.10630): a judge never sees a thought, so a thought earns
what the response after it is worth. Lengths are held back as there:

    score = norm(quality) - rho * norm(words)        norm(x) = (x - mean) / deviation

Reading: means and deviations are of the responses to one prompt; where all are equal, norm is 0.
What comes out are pairs whose replies are `<think>...</think>` and the response. Whether thoughts
are trained on is a setting of the run: data.tokenize.scored_turns=final_answer masks them, as
PRefLexOR's answer comparison does; all scores them.
"""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trillium.generation.interface import SamplingConfig
from trillium.records import PairRow
from trillium.strategies.answers import Answers, Participant, open_answers
from trillium.strategies.attributes import read_score
from trillium.strategies.prompts import PromptRow, as_question, make_pair

_END = "</think>"
_WRITTEN = re.compile(r"\s*(?:<think>)?(.*?)</think>\s*(.*?)\s*", re.S)


@dataclass(frozen=True)
class Thought:
    """Hold a thought and the response after it."""

    thought: str
    response: str

    @property
    def text(self) -> str:
        """Return both as one reply."""
        return f"<think>{self.thought}{_END}\n\n{self.response}"


@dataclass(frozen=True)
class ThoughtPairs:
    """Hold the pairs and what was left out of them."""

    rows: list[PairRow]
    n_sampled: int
    n_without_thought: int
    n_unreadable: int
    n_alike: int


def ask_for_thought(question: str) -> str:
    """Return the prompt that makes a model think first."""
    return (
        "Think before you respond: write your thoughts between <think> and </think>, plan a first "
        "version and look for mistakes in it. Then write the response. Only what follows </think> "
        f"will be read.\n\n{question}"
    )


def split_thought(text: str) -> Thought | None:
    """Return thought and response; None unless one thought ends and a response follows it."""
    found = _WRITTEN.fullmatch(text)
    if text.count(_END) != 1 or found is None or not found[2]:
        return None
    return Thought(found[1].strip(), found[2])


def ask_for_grade(question: str, response: str) -> str:
    """Return the question to the judge, who sees no thought."""
    return (
        "Score the response to a request from 0 to 10 for how well it does what is asked: correct, "
        f"complete, clear. Length earns nothing.\n\n[Request]\n{question}\n\n[Response]\n{response}"
        "\n\nAnswer with the number alone.\n"
    )


def control_length(qualities: Sequence[float], words: Sequence[float], rho: float) -> list[float]:
    """Return the scores of the responses to one prompt, long ones held back."""
    pairs = zip(_norm(qualities), _norm(words), strict=True)
    return [quality - rho * length for quality, length in pairs]


def pair_by_thoughts(
    rows: Sequence[PromptRow],
    writer: Participant,
    judge: Participant,
    file: Path,
    *,
    sampling: SamplingConfig,
    rho: float,
    is_native: bool,
    seed: int,
) -> ThoughtPairs:
    """Return one pair per prompt: the response that scores most, and the one that scores least.

    `is_native`: the model thinks unasked, so prompts stay as they are. `file` is what answers are
    kept in and taken from.
    """
    asked = [as_question(row.prompt) for row in rows]
    questions = asked if is_native else [ask_for_thought(question) for question in asked]
    pairs: list[PairRow] = []
    n_readable = n_thoughts = 0
    with open_answers(file, seed=seed) as answers:
        drawn = answers.draw(writer, questions, sampling)
        for row, plain, question, texts in zip(rows, asked, questions, drawn, strict=True):
            thoughts = [found for text in texts if (found := split_thought(text)) is not None]
            graded = _grade(plain, thoughts, judge, answers)
            n_thoughts += len(thoughts)
            n_readable += len(graded)
            pair = _pair(row.id, question, graded, rho)
            pairs += [pair] if pair is not None else []
    n_sampled = sum(map(len, drawn))
    return ThoughtPairs(
        rows=pairs,
        n_sampled=n_sampled,
        n_without_thought=n_sampled - n_thoughts,
        n_unreadable=n_thoughts - n_readable,
        n_alike=len(rows) - len(pairs),
    )


def _grade(
    question: str, thoughts: Sequence[Thought], judge: Participant, answers: Answers
) -> list[tuple[Thought, float]]:
    how = SamplingConfig(temperature=0.0, max_new_tokens=16)
    asked = [ask_for_grade(question, thought.response) for thought in thoughts]
    scores = [read_score(said[0]) for said in answers.draw(judge, asked, how)]
    graded = zip(thoughts, scores, strict=True)
    return [(thought, score) for thought, score in graded if score is not None]


def _pair(
    id: str, question: str, graded: Sequence[tuple[Thought, float]], rho: float
) -> PairRow | None:
    """Pair the best with the worst; None where nothing tells them apart."""
    words = [float(len(thought.response.split())) for thought, _ in graded]
    scores = control_length([quality for _, quality in graded], words, rho)
    if not scores or max(scores) - min(scores) < 1e-9:
        return None
    best, worst = scores.index(max(scores)), scores.index(min(scores))
    thought_words = [float(len(thought.thought.split())) for thought, _ in graded]
    labels = {
        name: (values[best], values[worst])
        for name, values in (
            ("quality", [quality for _, quality in graded]),
            ("score", scores),
            ("words", words),
            ("thought_words", thought_words),
        )
    }
    return make_pair(id, question, graded[best][0].text, graded[worst][0].text, labels)


def _norm(values: Sequence[float]) -> list[float]:
    if not values:
        return []
    mean, deviation = statistics.fmean(values), statistics.pstdev(values)
    return [(value - mean) / deviation if deviation else 0.0 for value in values]
