"""Programs and tests out of what a model wrote, by syntax alone; nothing is executed here.

A completion continues a header, so a program is the header plus the longest part of the completion
that parses, without statements that run on import and fill nothing that it reads. What was sampled
stays untouched: training scores the sampled tokens, never a repaired text.
"""

import ast
from collections.abc import Iterable

from trillium_code.statements import needed
from trillium_code.syntax import parse, unparse

DEFINITIONS = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Import,
    ast.ImportFrom,
    ast.Assign,
    ast.AnnAssign,
)
_MAX_TEST_CHARACTERS = 400


def extract_program(header: str, completion: str) -> str:
    """Return the program that `completion` finishes, or all of it when no part of it parses.

    The text ends at a code fence. Of the header all definitions stay, of the rest what they need:
    calls, prints, asserts and assignments that no definition reads anything of are left out.
    """
    text = completion.split("\n```", 1)[0].removesuffix("```")
    lines = (header.rstrip("\n") + _on_new_line(text)).split("\n")
    n_header = header.rstrip("\n").count("\n") + 1
    for end in range(len(lines), n_header, -1):
        tree = parse_or_none("\n".join(lines[:end]))
        if tree is not None and _has_body(tree):
            tree.body = _without_examples(tree.body, n_header)
            program = unparse_or_none(tree)
            if program is None:
                break
            return program + "\n"
    return "\n".join(lines).rstrip() + "\n"


def normalise(program: str) -> str:
    """Return a text that two programs share when they differ in comments, docstrings or layout."""
    tree = parse_or_none(program)
    if tree is None:
        return program.strip()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    written = unparse_or_none(tree)
    return program.strip() if written is None else written


def stub_program(header: str) -> str:
    """Return the header with a body that does nothing; a test it passes tells nothing."""
    return header.rstrip("\n") + "\n    return None\n"


def parse_asserts(text: str) -> list[str]:
    """Return the asserts in `text` that are whole on one line, each once, in one spelling.

    A message after the condition is dropped; asserts that do not call `entry_point` are kept, so
    that they can be counted.
    """
    asserts: dict[str, None] = {}
    for line in text.split("\n"):
        stripped = line.strip()
        if not stripped.startswith("assert") or len(stripped) > _MAX_TEST_CHARACTERS:
            continue
        tree = parse_or_none(stripped)
        if tree is None or len(tree.body) != 1 or not isinstance(tree.body[0], ast.Assert):
            continue
        written = unparse_or_none(ast.Assert(test=tree.body[0].test, msg=None))
        if written is not None:
            asserts[written] = None
    return list(asserts)


def calls(test: str, entry_point: str) -> bool:
    """Say whether a test calls the function by name."""
    tree = parse_or_none(test)
    return tree is not None and any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == entry_point
        for node in ast.walk(tree)
    )


def group_equal(programs: Iterable[str]) -> list[list[int]]:
    """Return the positions of programs that are the same after `normalise`, by first appearance."""
    groups: dict[str, list[int]] = {}
    for position, program in enumerate(programs):
        groups.setdefault(normalise(program), []).append(position)
    return list(groups.values())


def parse_or_none(text: str) -> ast.Module | None:
    """Parse, or return None."""
    try:
        return parse(text)
    except SyntaxError:
        return None


def unparse_or_none(tree: ast.AST) -> str | None:
    """Write a tree as text, or return None where that cannot be done."""
    try:
        return unparse(tree)
    except SyntaxError:
        return None


def _on_new_line(text: str) -> str:
    return text if text.startswith("\n") else "\n" + text


def _without_examples(nodes: list[ast.stmt], n_header: int) -> list[ast.stmt]:
    """Keep the definitions of the header, and of the lines behind it what its function needs."""
    given = [node for node in nodes if node.lineno <= n_header and isinstance(node, DEFINITIONS)]
    functions = [node.name for node in given if isinstance(node, ast.FunctionDef)]
    kept = needed(nodes, functions[-1] if functions else "")
    return [node for node in nodes if node in kept or node in given]


def _has_body(tree: ast.Module) -> bool:
    """Say whether the last function has a statement besides its docstring."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    if not functions:
        return False
    body = functions[-1].body
    return len(body) > 1 or ast.get_docstring(functions[-1]) is None
