"""Parse Python that others wrote, without its warnings on our terminal.

The one door to Python's own parser: whatever breaks it comes out as a SyntaxError, for text of a
model or of a file breaks it in more ways than one.
"""

import ast
import symtable
import warnings
from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """Hold the names that a piece of a module gives to it, and those that it reads from it."""

    bound: frozenset[str]
    read: frozenset[str]


def parse(text: str) -> ast.Module:
    """Return the syntax tree of `text`; raises SyntaxError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise _as_syntax_error(error) from None


def lines_of(text: str) -> list[str]:
    """Return the lines of code as Python counts them: a form feed or U+2028 ends none."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def unparse(tree: ast.AST) -> str:
    """Return `tree` as text; raises SyntaxError for one that no text of this Python spells."""
    try:
        return ast.unparse(tree)
    except (ValueError, RecursionError) as error:
        raise _as_syntax_error(error) from None


def names_of(node: ast.stmt) -> Names:
    """Return the names of a statement of a module; arguments and locals of functions are none.

    A name that a function declares global counts as read. Raises SyntaxError.
    """
    text = unparse(ast.Module([node], type_ignores=[]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            top = symtable.symtable(text, "module", "exec")
    except (ValueError, RecursionError, MemoryError) as error:
        raise _as_syntax_error(error) from None
    own = top.get_symbols()
    read = {symbol.get_name() for symbol in own if symbol.is_referenced()}
    inner = top.get_children()
    while inner:
        scope = inner.pop()
        inner += scope.get_children()
        read |= {symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global()}
    bound = {symbol.get_name() for symbol in own if symbol.is_assigned() or symbol.is_imported()}
    return Names(frozenset(bound), frozenset(read))


def describe(error: SyntaxError) -> str:
    """Say what does not parse, and where, if that is known."""
    return error.msg if error.lineno is None else f"{error.msg}, its line {error.lineno}"


def _as_syntax_error(error: Exception) -> SyntaxError:
    if isinstance(error, RecursionError | MemoryError):
        return SyntaxError("it is nested too deeply")
    return SyntaxError(str(error))
