"""Locate errors by what is known of the problem: its numbers, its reference reasoning, its answer.

A step is wrong when it uses or computes a number that neither the question nor the reference has,
states a false equation, or fails to run. Where nothing of that is found, the step that printed or
boxed the wrong answer is. A right step on a way that the reference does not go can be blamed too
early: a pair is still right then, because its chosen step led to the right answer.
"""

import ast
import math
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Literal

from pydantic import BaseModel, ConfigDict

from trillium_math.agent.cells import find_call
from trillium_math.grading.tokens import FUNCTIONS
from trillium_math.localisation.mistake import Located, Mistake, Toolbox
from trillium_math.problems import Problem

# Longer numbers than this are no number that a reference has.
_NUMBER = re.compile(r"(?<![\w.])\d{1,40}(?:\.\d{1,40})?(?:/\d{1,40}(?:\.\d{1,40})?)?(?![\w.]*\w)")
_RESULT = re.compile(
    r"\s{0,4}(-?\d{1,40}(?:\.\d{1,40})?)"
    r"(?![.,]\d|\s{0,4}[-+*/\w=%^!(\\√\N{MULTIPLICATION SIGN}·÷°])"
)
_PLAIN = frozenset("0123456789.+-*/ ")
_MOST_CHARS = 4000
# Words that make what follows them a part of something larger: half of 10, the sum of 3 and 4.
_JOINING_TEXT = "of and or by times plus minus over mod modulo than to from square root cube"
_JOINING = FUNCTIONS | frozenset(_JOINING_TEXT.split())
# Numbers that may enter any computation: units of percent, time and angles, halves and squares.
_HARMLESS = frozenset(map(Fraction, (0, 1, 2, 3, 10, 12, 24, 60, 90, 100, 180, 360, 1000)))


class OracleLocaliser(BaseModel):
    """Compare each step with the problem's reference reasoning and verified solution."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["oracle"] = "oracle"

    def open(self, toolbox: Toolbox) -> "Oracle":
        """Return the localiser at work."""
        return Oracle(toolbox)


class Oracle:
    """The oracle at work; lines of code are run in the sandbox to see what they compute."""

    def __init__(self, toolbox: Toolbox) -> None:
        """Use an open tool."""
        self._toolbox = toolbox

    def locate(self, mistakes: Sequence[Mistake], *, seed: int) -> list[Located]:
        """Return the first step that contradicts what is known; `seed` is not used."""
        return [self._locate(one) for one in mistakes]

    def _locate(self, one: Mistake) -> Located:
        if not one.problem.reasoning and not one.problem.solution:
            return Located(None, "no reference")
        known = known_numbers(one.problem) | self._computed(one.problem)
        for step, (_, end) in enumerate(one.steps):
            why = self._check(one, step, end, known)
            if why is not None:
                return Located(step, why)
        return Located(self._last_chance(one), "wrong answer")

    def _check(self, one: Mistake, step: int, end: int, known: frozenset[Fraction]) -> str | None:
        start = one.steps[step][0]
        text = self._toolbox.dialogue.decode(one.trajectory.token_ids[start:end])
        if has_false_equation(text):
            return "false equation"
        if read_numbers(text) - known - _HARMLESS:
            return "unknown number"
        turn = max(index for index, span in enumerate(one.trajectory.spans) if span[0] <= start)
        code = self._code(one, turn, end)
        probed = probe_last_line(code) if code else None
        # A line of prose, or one that ends a fence, changes no variable.
        if probed is None or probed == self._probed_before(one, turn, step):
            return None
        cells = self._cells_before(one, turn)
        (result,) = self._toolbox.tool.run([[*cells, probed]])
        if result.status == "lost":
            return None
        if result.status != "ok":
            return f"code: {result.status}"
        value = read_value(result.output)
        if value is not None and value not in known | _HARMLESS:
            return "unknown result"
        return None

    def _code(self, one: Mistake, turn: int, end: int) -> str | None:
        start = one.trajectory.spans[turn][0]
        return find_call(self._toolbox.dialogue.decode(one.trajectory.token_ids[start:end]))

    def _probed_before(self, one: Mistake, turn: int, step: int) -> str | None:
        if step == 0 or one.steps[step - 1][1] <= one.trajectory.spans[turn][0]:
            return None
        code = self._code(one, turn, one.steps[step - 1][1])
        return probe_last_line(code) if code else None

    def _cells_before(self, one: Mistake, turn: int) -> list[str]:
        ends = [end for _, end in one.trajectory.spans]
        return [self._code(one, earlier, ends[earlier]) or "" for earlier in range(turn)]

    def _computed(self, problem: Problem) -> frozenset[Fraction]:
        """Return what the lines of the verified solution compute."""
        lines = problem.solution.splitlines()
        codes = ["\n".join(lines[: number + 1]) for number in range(len(lines))]
        probes = [[probed] for code in codes if (probed := probe_last_line(code)) is not None]
        values = (read_value(result.output) for result in self._toolbox.tool.run(probes))
        return frozenset(value for value in values if value is not None)

    def _last_chance(self, one: Mistake) -> int:
        """Return the step that printed another answer than the right one, or the last step."""
        gold = read_value(one.problem.answer)
        spans, steps = one.trajectory.spans, one.steps
        outputs = [turn.content for turn in one.trajectory.turns if turn.status]
        if gold is not None and len(spans) > 1 and outputs:
            printed = read_value(outputs[-1].removeprefix("```output\n").removesuffix("\n```"))
            if printed != gold:
                end = spans[-2][1]
                inside = [i for i, step in enumerate(steps) if step[1] <= end]
                lines = [i for i in inside if read_line(one, i, self._toolbox)]
                return (lines or inside)[-1]
        return len(steps) - 1


def read_line(one: Mistake, step: int, toolbox: Toolbox) -> str:
    """Return a step's text without fences and space."""
    start, end = one.steps[step]
    text = toolbox.dialogue.decode(one.trajectory.token_ids[start:end])
    return re.sub(r"```\w*", "", text).strip()


def known_numbers(problem: Problem) -> frozenset[Fraction]:
    """Return every number that a problem and its reference mention."""
    parts = (problem.question, problem.reasoning, problem.solution, problem.answer)
    return frozenset(number for part in parts for number in read_numbers(part))


def read_numbers(text: str) -> frozenset[Fraction]:
    """Return the numbers in a text, without signs; a/b counts as a, b and the fraction."""
    return frozenset(number for match in _NUMBER.finditer(text) for number in _parts(match[0]))


def _parts(found: str) -> Iterator[Fraction]:
    numerator, _, denominator = found.partition("/")
    yield Fraction(numerator)
    if denominator:
        yield Fraction(denominator)
        if Fraction(denominator):
            yield Fraction(numerator) / Fraction(denominator)


def read_value(text: str) -> Fraction | None:
    """Return the last line of a text as a number's absolute value, or None where it is none.

    Floating-point output is rounded to what a reference would write: 12 significant digits.
    """
    last = text.strip().splitlines()[-1].strip() if text.strip() else ""
    if not re.fullmatch(r"-?\d{1,40}(\.\d{1,40})?(e[+-]?\d{1,3})?(/\d{1,40})?", last):
        return None
    if "/" in last:
        top, bottom = last.split("/")
        return abs(Fraction(top) / Fraction(bottom)) if "e" not in top and int(bottom) else None
    is_exact = ("." not in last and "e" not in last) or math.isinf(float(last))
    return abs(Fraction(last if is_exact else f"{float(last):.12g}"))


def has_false_equation(text: str) -> bool:
    """Say whether a text states a plain equation of numbers that does not hold.

    A decimal on the right may be rounded to the places that it shows. What is a part of a longer
    expression, or holds more than numbers and the four operations, is not judged.
    """
    text = text[:_MOST_CHARS]
    for place in (index for index, character in enumerate(text) if character == "="):
        start = place
        while start and text[start - 1] in _PLAIN:
            start -= 1
        stated = _RESULT.match(text, place + 1)
        left = text[start:place].strip()
        if stated is None or not left[:1].isdigit() or not _begins(text[:start], text[start:place]):
            continue
        try:
            difference = abs(_compute(ast.parse(left, mode="eval").body) - Fraction(stated[1]))
        except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
            continue
        places = len(stated[1].partition(".")[2])
        if difference > (Fraction(1, 2 * 10**places) if places else 0):
            return True
    return False


def _begins(before: str, found: str) -> bool:
    """Say whether the numbers in `found` begin an equation, and are no part of what is before."""
    last, is_apart = before[-1:], found[0].isspace()
    if not last or last in "\n;!?=(" or (is_apart and last in ",:#"):
        return True
    word = re.search(r"(?<![^\W_])(?<!\\)[^\W\d_]{2,40}$", before)
    # Behind a word a number alone may be named with it, as in: the rest of all 50.
    is_number = found.strip().replace(".", "").isdigit()
    return is_apart and word is not None and word[0].lower() not in _JOINING and not is_number


def _compute(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as value):
            return Fraction(str(value))
        case ast.BinOp(left=left, op=op, right=right):
            one, other = _compute(left), _compute(right)
            match op:
                case ast.Add():
                    return one + other
                case ast.Sub():
                    return one - other
                case ast.Mult():
                    return one * other
                case ast.Div():
                    return one / other
    raise ValueError("not a plain expression")


def probe_last_line(code: str) -> str | None:
    """Return the code with a line that prints what its last statement computed.

    None where the code cannot be parsed yet, or where its last statement computes no one value.
    """
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    match body[-1:]:
        case [ast.Assign(targets=[ast.Name(id=name)])] | [ast.AugAssign(target=ast.Name(id=name))]:
            return f"{code}\nprint({name})"
        case [ast.Expr()]:
            return code
    return None
