"""What is asked when tasks are invented, and how the answers are read."""

import ast
import builtins
import re
import typing
from typing import Literal

from trillium_code.prompt_config import SHOTS
from trillium_code.syntax import parse
from trillium_code.task_rows import docstring_of
from trillium_code.tasks import CodeTask

Reason = Literal[
    "unfinished", "unparsable", "no_arguments", "no_result", "unknown_types", "too_short"
]

CONCEPT_STOPS = ("\n",)
TASK_STOPS = ("\n\n\n", "\n# ", "\ndef ", "\n    return", "\n    if ", "\n    for ", "\n```")
_QUOTES = '"""'
_MAX_CONCEPTS, _MAX_CONCEPT_CHARACTERS, _MIN_WORDS = 4, 40, 5
_SNIPPETS = (
    (
        "def ratio(words, wanted):\n    n_found = 0\n    for word in words:\n"
        "        if word == wanted:\n            n_found += 1\n    return n_found / len(words)\n",
        "counting in a loop, comparing strings, division",
    ),
    (
        "def merge(first, second):\n    merged = dict(first)\n    for key in second:\n"
        "        merged.setdefault(key, []).extend(second[key])\n    return merged\n",
        "dictionaries, default values, joining lists",
    ),
)
_IDEAS = ("counting characters, strings", "lists of pairs, absolute value, sums")


def concept_prompt(code: str) -> str:
    """Return the text that asks for the concepts of a snippet; its answer is one line."""
    shown = [(snippet, f" {concepts}\n\n\n") for snippet, concepts in _SNIPPETS] + [(code, "")]
    return "Python functions, and the programming concepts that they show.\n\n\n" + "".join(
        f"```python\n{snippet}```\nConcepts:{concepts}" for snippet, concepts in shown
    )


def concept_question(code: str) -> str:
    """Return what a chat server is asked for the concepts of a snippet."""
    return (
        "Which programming concepts does this Python function show? Answer with at most four, on "
        f"one line, separated by commas, and nothing else.\n\n```python\n{code}```"
    )


def task_question(concepts: tuple[str, ...]) -> str:
    """Return what a chat server is asked for a task."""
    return (
        f"Invent one small exercise for Python programmers that needs: {', '.join(concepts)}. "
        "Answer with the signature of one function, with type hints, and a docstring that says in "
        "a sentence or two all that the function does; leave the body out. An example of the "
        f"form:\n\n```python\n{SHOTS[0].header}```"
    )


def read_concept_answer(answer: str) -> str:
    """Return the line of a chat server's answer that names the concepts."""
    lines = (re.sub(r"^\W*concepts?\W*:", "", line, flags=re.I) for line in answer.split("\n"))
    return next((line for line in lines if re.search("[A-Za-z]", line)), "")


def read_task_answer(answer: str) -> str:
    """Return what follows the first `def` of a chat server's answer, inside its fence if any."""
    blocks = re.findall(r"```\w*\n(.*?)(?:```|\Z)", answer, flags=re.S) or [answer]
    found = re.search(r"^def(?=\s)", blocks[0], flags=re.M)
    return blocks[0][found.end() :] if found else ""


def parse_concepts(answer: str) -> tuple[str, ...]:
    """Return the concepts named on the first line, in lower case, each once."""
    parts = (part.strip(" .;:*-`").lower() for part in answer.strip().split("\n")[0].split(","))
    usable = (
        part for part in parts if re.search("[a-z]", part) and len(part) <= _MAX_CONCEPT_CHARACTERS
    )
    return tuple(dict.fromkeys(usable))[:_MAX_CONCEPTS]


def task_prompt(concepts: tuple[str, ...]) -> str:
    """Return the text that asks for a signature with a docstring; it ends with `def`."""
    shown = "".join(
        f"# Concepts: {idea}\n{shot.header}\n\n" for idea, shot in zip(_IDEAS, SHOTS, strict=True)
    )
    return (
        "# Exercises: each function does one small thing, and its docstring says all of it.\n\n\n"
        f"{shown}# Concepts: {', '.join(concepts)}\ndef"
    )


def parse_task(answer: str, *, id: str) -> CodeTask | Reason:
    """Return the task in what continued `def`, or why there is none."""
    pieces = answer.split(_QUOTES)
    if len(pieces) < 3:
        return "unfinished"
    header = f"def{_QUOTES.join(pieces[:2])}{_QUOTES}\n"
    try:
        body = parse(header + "    pass\n").body
    except SyntaxError:
        return "unparsable"
    function = body[0]
    if len(body) != 1 or not isinstance(function, ast.FunctionDef):
        return "unparsable"
    if not function.args.args:
        return "no_arguments"
    if isinstance(function.returns, ast.Constant) and function.returns.value is None:
        return "no_result"  # an assert could not tell a right program from an empty one
    unknown = _names(function) - set(dir(builtins))
    if unknown - set(typing.__all__):
        return "unknown_types"  # the signature alone would fail to load
    if unknown:
        header = f"from typing import {', '.join(sorted(unknown))}\n\n\n{header}"
    statement = " ".join(docstring_of(header, function.name).split())
    if len(statement.split()) < _MIN_WORDS:
        return "too_short"
    return CodeTask(id, function.name, header, statement)


def _names(function: ast.FunctionDef) -> set[str]:
    """Return the names that the signature reads when it is loaded."""
    return {
        node.id
        for part in (function.args, *([function.returns] if function.returns else []))
        for node in ast.walk(part)
        if isinstance(node, ast.Name)
    }
