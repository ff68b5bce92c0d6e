"""Which statements of a module its function needs, and which only run when it is imported.

By syntax alone, so what a call does is told by its form: a method may fill its object, a function
its arguments, and one of the module what its body fills. Python's own, as `print`, fill nothing.
"""

import ast
import builtins
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from trillium_code.syntax import Names, names_of

ALWAYS_KEPT = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
_LENT = (*ALWAYS_KEPT, ast.Assign, ast.AnnAssign)
_NO_NAMES = Names(frozenset(), frozenset())


@dataclass(frozen=True)
class _Function:
    """Hold the names of its module that a function reads, and those that a call of it fills."""

    reads: set[str]
    fills: set[str]


@dataclass(frozen=True)
class _Statement:
    """Hold the names that a statement reads, sets or fills, and those that functions fill in it."""

    node: ast.stmt
    reads: set[str]
    gives: set[str]
    fills: set[str]


def needed(nodes: list[ast.stmt], entry_point: str) -> list[ast.stmt]:
    """Leave out prints, asserts, examples, main blocks: what no definition reads anything of.

    A table stays and the loop that fills it, an import that may fail, an attribute of the function.
    A call that fills a table stays where the entry point reads the table and the call does not lead
    to the entry point: other calls are examples, or wait for the keyboard.
    """
    always = [node for node in nodes if isinstance(node, ALWAYS_KEPT)]
    others = [n for n in nodes if not isinstance(n, ALWAYS_KEPT) and not _is_main_block(n)]
    functions = _functions(always)
    variables = {name for node in others for name in bound(node)}
    variables |= {name for node in always for name in _declared_global(node)}
    definitions = [_Statement(node, _read(node), set(bound(node)), set()) for node in always]
    running = [
        _Statement(
            node,
            _read(node),
            {*bound(node), *_set_inside(node), *(_filled_by_methods(node) & variables)},
            _filled_by_functions(node, functions, entry_point) & variables,
        )
        for node in others
    ]
    steps = [(one.gives | one.fills, one.reads) for one in (*definitions, *running)]
    used = _follow({entry_point}, steps)
    filling = [one for one in running if one.fills & used]
    wanted = {entry_point}.union(*(one.reads for one in (*definitions, *filling)))
    wanted = _follow(wanted, [(one.gives, one.reads) for one in running])
    kept = {*always, *(one.node for one in running if one.gives & wanted or one.fills & used)}
    return [node for node in nodes if node in kept]


def lent(
    nodes: Sequence[ast.stmt], known: Set[str], pieces: Sequence[ast.Module]
) -> list[ast.stmt]:
    """Return what other pieces of a program define of the names that `nodes` read and lack.

    That is definitions, imports and assignments, and what these lack themselves; the last piece
    that has a name gives it. `known` are names that are given elsewhere.
    """
    asked = {*known, *dir(builtins), *(name for node in nodes for name in bound(node))}
    found: set[ast.stmt] = set()
    fresh = set(nodes)
    while lacking := {name for node in fresh for name in _read(node)} - asked:
        asked |= lacking
        givers = [_givers(pieces, name) for name in lacking]
        fresh = {node for given in givers for node in given} - found
        found |= fresh
    return [node for piece in pieces for node in piece.body if node in found]


def _givers(pieces: Sequence[ast.Module], name: str) -> Sequence[ast.stmt]:
    for piece in reversed(pieces):
        given = [node for node in piece.body if _lends(node) and name in bound(node)]
        if given:
            return given
    return []


def _lends(node: ast.stmt) -> bool:
    """Say whether a statement of another block can give a name; `memo: dict` gives none."""
    return isinstance(node, _LENT) and not (isinstance(node, ast.AnnAssign) and node.value is None)


def bound(node: ast.stmt) -> frozenset[str]:
    """Return the names that a statement gives to its module."""
    return _names(node).bound


def _follow(names: set[str], steps: Sequence[tuple[set[str], set[str]]]) -> set[str]:
    """Add what is read by whoever gives one of `names`, and so on; a step is (gives, reads)."""
    while more := {name for gives, reads in steps if gives & names for name in reads - names}:
        names = names | more
    return names


def _functions(nodes: Iterable[ast.stmt]) -> dict[str, _Function]:
    """Return the functions of a module by name; its locals and arguments are no names of it."""
    found = {}
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            reads = _read(node)
            filled = _set_inside(node) | _filled_by_methods(node) | _arguments(_bare_calls(node))
            found[node.name] = _Function(reads, _declared_global(node) | (filled & reads))
    return found


def _filled_by_functions(
    node: ast.stmt, functions: Mapping[str, _Function], entry_point: str
) -> set[str]:
    """Return the names that functions fill in a statement, but for examples of the entry point."""
    steps = [({name}, function.reads) for name, function in functions.items()]
    filled: set[str] = set()
    for call in _bare_calls(node):
        mentioned = {part.id for part in ast.walk(call) if isinstance(part, ast.Name)}
        reached = _follow(mentioned, steps)
        if entry_point not in reached:
            filled |= _arguments([call])
            filled.update(*(functions[name].fills for name in reached & functions.keys()))
    return filled


def _is_main_block(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__name__" in _read(ast.Expr(node.test))


def _declared_global(node: ast.stmt) -> set[str]:
    """Return the names that functions in a statement declare global, to set them."""
    return {n for part in ast.walk(node) if isinstance(part, ast.Global) for n in part.names}


def _set_inside(node: ast.stmt) -> set[str]:
    """Return the names of which a statement sets attributes or items."""
    parts = (part for part in ast.walk(node) if isinstance(part, ast.Attribute | ast.Subscript))
    return {_root(part) for part in parts if not isinstance(part.ctx, ast.Load)}


def _bare_calls(node: ast.stmt) -> list[ast.Call]:
    """Return the calls in a statement that drop what they return."""
    values = (part.value for part in ast.walk(node) if isinstance(part, ast.Expr))
    return [value for value in values if isinstance(value, ast.Call)]


def _filled_by_methods(node: ast.stmt) -> set[str]:
    """Return the names of which a statement calls methods and drops what they return."""
    functions = (call.func for call in _bare_calls(node))
    return {_root(function) for function in functions if isinstance(function, ast.Attribute)}


def _arguments(calls: Iterable[ast.Call]) -> set[str]:
    """Return the names that are given to functions which are not Python's own."""
    own = dir(builtins)
    return {
        _root(argument)
        for call in calls
        if not (isinstance(call.func, ast.Name) and call.func.id in own)
        for argument in (*call.args, *(keyword.value for keyword in call.keywords))
    }


def _root(part: ast.expr) -> str:
    """Return the name at the beginning of `a.b[c].d(e).f`, an empty text where there is none."""
    while True:
        if isinstance(part, ast.Attribute | ast.Subscript):
            part = part.value
        elif isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
            part = part.func
        else:
            return part.id if isinstance(part, ast.Name) else ""


def _names(node: ast.stmt) -> Names:
    """Return the names of a statement; one that Python refuses when it is loaded has none."""
    try:
        return names_of(node)
    except SyntaxError:
        return _NO_NAMES


def _read(node: ast.stmt) -> set[str]:
    """Return the names that a statement reads from its module, but for those its loops count in."""
    targets = [part.target for part in _own_parts(node) if isinstance(part, ast.For)]
    counters = {
        part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)
    }
    return set(_names(node).read - counters)


def _own_parts(node: ast.AST) -> Iterator[ast.AST]:
    """Walk what is in the module's own scope: not the bodies of functions and classes."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
        return
    yield node
    for part in ast.iter_child_nodes(node):
        yield from _own_parts(part)
