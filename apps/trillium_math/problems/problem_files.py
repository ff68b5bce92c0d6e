"""Read and write problem files: our own JSON lines, GSM8K, SVAMP, MATH, and reasoning-gym.

The kind of a line is told by its fields. Every line that is wrong is reported at once.
reasoning-gym's own scorers are never used: they accept the first number of a text, or a substring;
answers go through our grader.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from trillium.errors import ConfigError, DataError
from trillium.files import write_atomically
from trillium.problems import Place, describe_problems
from trillium.problems import Problem as Mistake

from trillium_math.problems.problem import Problem, Split

_GSM8K_MARK = "#### "
_MARK = re.compile(r"<<[^<>]*>>")
_MAX_SHOWN = 50
# Item i of a reasoning-gym data set uses Random(seed + i), so neighbouring seeds share nearly all
# items. Our seeds are this far apart.
_SEED_STRIDE = 10_000_000


def read_problems(path: Path) -> list[Problem]:
    """Read a .jsonl file of any known kind; raises DataError with every line that is wrong."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file (needs .jsonl); check the path")
    problems: list[Problem] = []
    mistakes: list[Mistake] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        place = Place(f"{path}:", str(number))
        try:
            problem = _read(line, f"{path.stem}/{number - 1}")
        except (DataError, TypeError, ValueError) as error:
            mistakes.append(Mistake(place, str(error)))
            continue
        first = lines.setdefault(problem.id, number)
        if first < number:
            reason = f"id {problem.id!r} is that of line {first} (each needs its own); change one"
            mistakes.append(Mistake(place, reason))
        problems.append(problem)
    if mistakes:
        raise DataError(describe_problems(mistakes, max_shown=_MAX_SHOWN))
    if not problems:
        raise DataError(f"{path}: has no problems (needs at least one line); check the file")
    return problems


def write_problems(path: Path, problems: list[Problem]) -> None:
    """Write problems as JSON lines, in one step."""
    lines = (json.dumps(asdict(problem), ensure_ascii=False) + "\n" for problem in problems)
    write_atomically(path, "".join(lines))


def draw_from_gym(name: str, *, split: Split, n_problems: int, seed: int) -> list[Problem]:
    """Draw distinct problems from a reasoning-gym data set; needs the extra `math-extras`.

    gsm_symbolic is split by template, every fifth held out; other data sets have one template and
    are split by seed. Items without a textual answer, and negative ones of gsm_symbolic, are faulty
    and left out.
    """
    try:
        import reasoning_gym
    except ImportError as error:
        raise ConfigError(
            f"source=gym:{name}: is not installed; pip install 'trillium[math-extras]'"
        ) from error
    if name not in reasoning_gym.factory.DATASETS:
        raise ConfigError(f"source=gym:{name}: reasoning-gym has no such data set; check the name")
    is_symbolic = name == "gsm_symbolic"
    size = 8 * n_problems
    own_seed = (2 * seed + (split == "held_out")) * _SEED_STRIDE
    dataset = reasoning_gym.create_dataset(name, size=size, seed=own_seed)
    found: dict[str, Problem] = {}
    for index in range(size):
        template = dataset.task_indices[index] if is_symbolic else 0
        if len(found) == n_problems or (
            is_symbolic and (template % 5 == 0) != (split == "held_out")
        ):
            continue
        item = dataset[index]
        answer = item["answer"]
        if answer is None or (is_symbolic and str(answer).startswith("-")):
            continue
        problem = Problem(
            id=f"gym/{name}/{own_seed}/{index}",
            question=item["question"],
            answer=str(answer),
            family=f"gym_{name}",
            template=f"{name}-{template}",
            reasoning=str(item["metadata"].get("answer_cot", "")),
        )
        found.setdefault(problem.question, problem)
    if len(found) < n_problems:
        raise ConfigError(
            f"source=gym:{name}: only {len(found)} of {n_problems} problems have an answer and "
            "differ; ask for fewer, or choose another data set"
        )
    return list(found.values())


def _read(line: bytes, name: str) -> Problem:
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise DataError("is no UTF-8 (needs a JSON object in UTF-8); save it as that") from error
    except (ValueError, RecursionError) as error:
        raise DataError("is no JSON (needs a JSON object); correct it") from error
    if not isinstance(record, Mapping):
        raise DataError(f"is {_name(record)} (needs a JSON object); correct it")
    kind = next((kind for kind in _READERS if kind <= record.keys()), None)
    if kind is None:
        known = "; or ".join(" and ".join(sorted(kind)) for kind in _READERS)
        raise DataError(f"has no known fields (needs {known}); correct it")
    problem = _READERS[kind](record, name)
    for part, text in (("question", problem.question), ("reference answer", problem.answer)):
        if not text.strip():
            raise DataError(f"the {part} is empty (needs text); drop the line")
    return problem


def _own(record: Mapping[str, object], name: str) -> Problem:
    unknown = record.keys() - Problem.__dataclass_fields__.keys()
    if unknown:
        raise DataError(f"unknown field {sorted(unknown)[0]!r} (fields of a problem); remove it")
    texts = {key: _text(record, key) for key in record if key != "difficulty"}
    difficulty = record.get("difficulty", 0)
    if type(difficulty) is not int:
        raise DataError(f"difficulty is {difficulty!r} (needs a whole number); correct it")
    problem = Problem(**{"id": name, **texts}, difficulty=difficulty)
    if _GSM8K_MARK not in problem.answer:
        return problem
    read = _gsm8k(record, name)
    reasoning = problem.reasoning or read.reasoning
    return replace(problem, answer=read.answer, reasoning=reasoning)


def _gsm8k(record: Mapping[str, object], name: str) -> Problem:
    reasoning, mark, answer = _text(record, "answer").rpartition(_GSM8K_MARK)
    if not mark:
        raise DataError('field "answer" has no line "#### ..." (GSM8K format); correct it')
    return Problem(
        id=name,
        question=_text(record, "question"),
        answer=answer.strip(),
        family="gsm8k",
        reasoning=_MARK.sub("", reasoning).strip(),
    )


def _svamp(record: Mapping[str, object], name: str) -> Problem:
    answer = record["Answer"]
    if isinstance(answer, bool) or not isinstance(answer, int | float) or not math.isfinite(answer):
        raise DataError(f'field "Answer" is {answer!r} (needs a number); correct it')
    body = _text(record, "Body").strip()
    joint = " " if body.endswith((".", "?", "!")) else ", "
    equation = _value(record, "Equation").strip()
    return Problem(
        id=name,
        question=body + joint + _text(record, "Question").strip(),
        answer=repr(answer) if answer % 1 else str(int(answer)),
        family=f"svamp_{_value(record, 'Type')}".lower().rstrip("_"),
        solution=f"print({equation})" if equation else "",
    )


def _math(record: Mapping[str, object], name: str) -> Problem:
    from trillium_math.grading.extraction import find_box

    solution = _text(record, "solution")
    stated = _text(record, "answer") if record.get("answer") is not None else ""
    answer = stated or find_box(solution)
    if answer is None:
        raise DataError("the solution has no balanced \\boxed answer (MATH format); correct it")
    level = re.search(r"\d+", _value(record, "level"))
    kind = _value(record, "subject") or _value(record, "type") or "math"
    return Problem(
        id=_value(record, "unique_id") or name,
        question=_text(record, "problem"),
        answer=answer,
        family=kind.lower().replace(" ", "_"),
        difficulty=int(level[0]) if level else 0,
        reasoning=solution,
    )


def _text(record: Mapping[str, object], key: str) -> str:
    value = record[key]
    if not isinstance(value, str):
        raise DataError(f'field "{key}" is {_name(value)} (needs text); correct it')
    return value


def _value(record: Mapping[str, object], key: str) -> str:
    """Return a value that a line may lack as text; null, as of an exported table, is nothing."""
    value = record.get(key)
    return "" if value is None else str(value)


def _name(value: object) -> str:
    return "null" if value is None else type(value).__name__


_READERS: dict[frozenset[str], Callable[[Mapping[str, object], str], Problem]] = {
    frozenset({"problem", "solution"}): _math,
    frozenset({"Body", "Question", "Answer"}): _svamp,
    frozenset({"id", "question", "answer"}): _own,
    frozenset({"question", "answer"}): _gsm8k,
}
