"""Grade a file of pairs: every line checked first, then one verdict per line.

A disagreement with math-verify, where that second opinion is asked for, goes to a file of its own;
our verdict stands.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trillium.errors import DataError
from trillium.files import write_atomically
from trillium.problems import Place, Problem, describe_problems

from trillium_math.grading.grader import Grade, Grader, Kind
from trillium_math.grading.second_opinion import SecondOpinion

_NEEDS = "id, kind, gold, prediction"
_MAX_SHOWN = 50


@dataclass(frozen=True)
class Pair:
    """Hold one line: what to grade against what."""

    id: str | int
    kind: Kind
    gold: str
    prediction: str


def read_pairs(source: str) -> list[Pair]:
    """Read a .jsonl file, or standard input for `-`; raises DataError with every bad line."""
    if source == "-":
        lines = sys.stdin.buffer.read().splitlines()
    else:
        path = Path(source)
        if not path.is_file():
            raise DataError(f"{path}: there is no such file (needs .jsonl, or -); check the path")
        lines = path.read_bytes().splitlines()
    pairs: list[Pair] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                pairs.append(_read_pair(line))
            except DataError as error:
                problems.append(Problem(Place(f"{source}:", str(number)), str(error)))
    if problems:
        raise DataError(describe_problems(problems, max_shown=_MAX_SHOWN))
    return pairs


def grade_pairs(
    pairs: list[Pair], *, disagreements: Path | None = None
) -> Iterator[dict[str, object]]:
    """Yield `{"id", "correct", "extracted"}` for each pair, in order."""
    if disagreements is None:
        with Grader() as grader:
            for pair in pairs:
                grade = grader.grade(pair.gold, pair.prediction, pair.kind)
                yield _verdict(pair, grade)
        return
    noted: list[str] = []
    with Grader() as grader, SecondOpinion() as second:
        for pair in pairs:
            grade = grader.grade(pair.gold, pair.prediction, pair.kind)
            opinion = second.grade(pair.gold, pair.prediction, pair.kind)
            verdict = _verdict(pair, grade)
            if opinion is not grade.correct:
                other = {"gold": pair.gold, "prediction": pair.prediction, "math_verify": opinion}
                noted.append(json.dumps({**verdict, **other}) + "\n")
            yield verdict
    write_atomically(disagreements, "".join(noted))


def _verdict(pair: Pair, grade: Grade) -> dict[str, object]:
    return {"id": pair.id, "correct": grade.correct, "extracted": grade.extracted}


def _read_pair(line: bytes) -> Pair:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"is no JSON (needs {_NEEDS}); correct the line") from error
    if not isinstance(row, Mapping):
        raise DataError(f"is no JSON object (needs {_NEEDS}); correct the line")
    id = row.get("id")
    if isinstance(id, bool) or not isinstance(id, str | int):
        raise DataError(f'field "id" is {_show(id)} (needs text or a whole number); correct it')
    kind = row.get("kind")
    if kind != "answer" and kind != "response":
        raise DataError(f'field "kind" is {_show(kind)} (needs answer or response); correct it')
    for name in ("gold", "prediction"):
        if not isinstance(row.get(name), str):
            raise DataError(f'field "{name}" is {_show(row.get(name))} (needs text); correct it')
    if not row["gold"].strip():
        raise DataError('field "gold" is empty (needs the reference answer); drop the line')
    return Pair(id, kind, row["gold"], row["prediction"])


def _show(value: object) -> str:
    if value is None:
        return "missing"
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
