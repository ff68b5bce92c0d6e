"""Programs out of free answers: sentences around a code block, or code with no block at all.

By syntax alone, like `programs.py`; nothing is executed. What was sampled stays untouched: training
scores the sampled tokens, and a program found, or repaired, here only says how they are judged.
"""

import ast
import builtins
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from trillium_code.fences import fenced_blocks
from trillium_code.programs import DEFINITIONS, parse_or_none, unparse_or_none
from trillium_code.repairs import unwrap_method, with_name
from trillium_code.statements import ALWAYS_KEPT, bound, lent, needed

Repair = Literal["renamed", "unwrapped"]

_MOST_LINES, _MOST_ANCHORS = 200, 8
_ANY_DEFINITION = re.compile(r"[ \t]*(?:def|class)[ \t]+\w")


@dataclass(frozen=True)
class Reading:
    """Hold the program that was read in an answer.

    `is_whole` says whether it defines its function; one that does not fails every test. `repair`
    says what was done to its signature, if anything.
    """

    program: str
    is_whole: bool
    repair: Repair | None = None


def read_answer(
    text: str, entry_point: str, header: str, *, repairs_signature: bool = False
) -> Reading:
    """Return the program in a free answer; no text makes this raise.

    The last code block that defines the function counts, else the longest run of lines anywhere
    that parses and defines it. Imports, classes and helper functions stay, and so does what sets or
    fills a name that these read; other statements that run on import go. Names that the block lacks
    come from the definitions, imports and assignments of the other blocks. Imports and helper
    functions of the header come first where the block does not define them itself. With
    `repairs_signature`, an answer that defines the function under another name, or as a method of a
    class Solution, is read too.
    An answer with nothing of this becomes a program of comments, which fails every test.
    """
    name = re.escape(entry_point)
    anchor = re.compile(rf"[ \t]*(?:def[ \t]+{name}\b|{name}[ \t]*(?::[^=\n]*)?=)")
    found = _find(text, anchor, lambda tree: tree if _defines(tree, entry_point) else None)
    repair: Repair | None = None
    if found is None and repairs_signature:
        found = _find(text, _ANY_DEFINITION, lambda tree: with_name(tree, entry_point, header))
        repair = "renamed"
        if found is None:
            found = _find(text, _ANY_DEFINITION, lambda tree: unwrap_method(tree, entry_point))
            repair = "unwrapped"
    program = None if found is None else _write(*found, entry_point, header)
    if program is None:
        lines = [f"# {line}".rstrip() for line in text.strip().splitlines()]
        program = "\n".join([f"# no function {entry_point} in this answer:", *lines]) + "\n"
        return Reading(program, is_whole=False)
    return Reading(program, is_whole=True, repair=repair)


def defines(program: str, entry_point: str) -> bool:
    """Say whether a program parses and defines the function."""
    tree = parse_or_none(program)
    return tree is not None and _defines(tree, entry_point)


Accept = Callable[[ast.Module], ast.Module | None]


def _find(
    text: str, anchor: re.Pattern[str], accept: Accept
) -> tuple[ast.Module, list[ast.Module]] | None:
    """Return what `accept` makes of the last block, else of the longest run, that it takes.

    With a block come the other blocks that parse, in order.
    """
    text = text.replace("\r\n", "\n")
    blocks = fenced_blocks(text)
    for block in reversed(blocks):
        for tree in _runs(block.text, anchor):
            accepted = accept(tree)
            if accepted is not None:
                others = (parse_or_none(other.text) for other in blocks if other is not block)
                return accepted, [other for other in others if other is not None]
    found = (accept(tree) for tree in _runs(text, anchor))
    return next(((tree, []) for tree in found if tree is not None), None)


def _runs(text: str, anchor: re.Pattern[str]) -> Iterator[ast.Module]:
    """Yield the runs of lines that parse and hold an anchor, the longest first, ties last first.

    A run that ends as late as it can from its anchor, and then begins as early as it can, is the
    longest around that anchor: two runs that share the line of a definition parse joined.
    """
    whole = parse_or_none(text)
    if whole is not None:
        yield whole
        return
    lines = text.split("\n")
    anchors = [number for number, line in enumerate(lines) if anchor.match(line)][-_MOST_ANCHORS:]
    runs: list[tuple[int, int, ast.Module]] = []
    covered = 0
    for start in anchors:
        run = _grow(lines, start) if start >= covered else None
        if run is not None:
            runs.append(run)
            covered = run[1]
    for _, _, tree in sorted(runs, key=lambda run: (run[0] - run[1], -run[0])):
        yield tree


def _grow(lines: list[str], start: int) -> tuple[int, int, ast.Module] | None:
    """Return begin, end and tree of the longest run around line `start`, less its indentation."""
    indent = lines[start][: len(lines[start]) - len(lines[start].lstrip())]
    if indent:
        lines = [line.removeprefix(indent) for line in lines]
    ends = range(min(len(lines), start + _MOST_LINES), start, -1)
    end = next((e for e in ends if parse_or_none("\n".join(lines[start:e])) is not None), None)
    if end is None:
        return None
    for begin in range(max(0, start - _MOST_LINES), start + 1):
        tree = parse_or_none("\n".join(lines[begin:end]))
        if tree is not None:
            return begin, end, tree
    return None


def _defines(tree: ast.Module, name: str) -> bool:
    """Say whether the module has the function with a body, or gives its name to another one."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            arguments = [*node.args.posonlyargs, *node.args.args]
            is_method = bool(arguments) and arguments[0].arg == "self"
            if not is_method and not all(map(_is_placeholder, node.body)):
                return True
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if value is not None and name in bound(node) and _is_function(value, tree):
            return True
    return False


def _is_placeholder(node: ast.stmt) -> bool:
    """Say whether a statement is `pass`, `...` or a docstring: no body to run."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return node.value.value is ... or isinstance(node.value.value, str)
    return isinstance(node, ast.Pass)


def _is_function(value: ast.expr, tree: ast.Module) -> bool:
    """Say whether a value is a lambda, or made of nothing but functions, classes and imports."""
    if isinstance(value, ast.Lambda):
        return True
    known = {name for node in tree.body if isinstance(node, ALWAYS_KEPT) for name in bound(node)}
    names = {part.id for part in ast.walk(value) if isinstance(part, ast.Name)}
    is_made = isinstance(value, ast.Name | ast.Attribute | ast.Call)
    return is_made and names <= known | set(dir(builtins))


def _write(tree: ast.Module, others: list[ast.Module], entry_point: str, header: str) -> str | None:
    """Return what a block defines behind what it lacks of the header and of other blocks."""
    own = needed(tree.body, entry_point)
    given = {name for node in own for name in bound(node)} | {entry_point}
    before = parse_or_none(header.rstrip() + "\n    pass\n")
    context = [
        node
        for node in (before.body if before else [])
        if isinstance(node, DEFINITIONS) and not _is_repeated(node, given)
    ]
    known = {name for node in context for name in bound(node)} | {entry_point}
    parts = [*context, *lent(own, known, others), *own]
    body = sorted(parts, key=lambda node: not _is_future(node))
    written = unparse_or_none(ast.Module(body, type_ignores=[]))
    return None if written is None else written + "\n"


def _is_repeated(node: ast.stmt, given: set[str]) -> bool:
    """Say whether a module gives all names of a statement already; those of a star are unknown."""
    names = bound(node)
    return bool(names) and names <= given


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"
