"""Signatures that a model did not keep: another name, or a method of a class Solution.

Pure functions on syntax trees. What is ambiguous is not repaired: a wrong guess would judge a
program that nobody wrote.
"""

import ast

from trillium_code.programs import parse_or_none

_NO_SOLUTIONS = ("main", "test")


def with_name(tree: ast.Module, entry_point: str, header: str) -> ast.Module | None:
    """Return the module with its one possible solution renamed to `entry_point`, or None.

    That is its only function, or the only one that no other function calls, `main` and tests left
    aside. It takes as many arguments as the header says, and both names mean nothing else in the
    module.
    """
    functions = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith(_NO_SOLUTIONS)
        and not (node.args.args and node.args.args[0].arg == "self")
    ]
    free = [
        node
        for node in functions
        if not any(node.name in _names(other) for other in functions if other is not node)
    ]
    if len(free) != 1 or not _takes(free[0], _n_arguments(header, entry_point)):
        return None
    old = free[0].name
    if entry_point in _names(tree) or not _is_only_read(tree, old):
        return None
    free[0].name = entry_point
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == old:
            node.id = entry_point
    return tree


def unwrap_method(tree: ast.Module, entry_point: str) -> ast.Module | None:
    """Return the module with a function that calls the method of that name, or None."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "Solution":
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            if any(method.name == entry_point for method in methods):
                call = f"return Solution().{entry_point}(*args, **kwargs)"
                plain = parse_or_none(f"def {entry_point}(*args, **kwargs):\n    {call}\n")
                assert plain is not None, f"{entry_point} is no name"
                tree.body += plain.body
                return tree
    return None


def _names(tree: ast.AST) -> set[str]:
    """Return every name in a tree: read, assigned, defined, imported, or of an argument."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
    return found


def _is_only_read(tree: ast.Module, name: str) -> bool:
    """Say whether a name is defined once and otherwise read alone."""
    n_defined = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            n_defined += node.name == name
        elif isinstance(node, ast.Global | ast.Nonlocal):
            n_defined += name in node.names
        elif isinstance(node, ast.Name):
            n_defined += node.id == name and not isinstance(node.ctx, ast.Load)
        elif isinstance(node, ast.arg):
            n_defined += node.arg == name
        elif isinstance(node, ast.alias):
            n_defined += (node.asname or node.name) == name
    return n_defined == 1


def _n_arguments(header: str, entry_point: str) -> int | None:
    tree = parse_or_none(header.rstrip() + "\n    pass\n")
    for node in tree.body if tree else []:
        if isinstance(node, ast.FunctionDef) and node.name == entry_point:
            return len(node.args.posonlyargs) + len(node.args.args)
    return None


def _takes(function: ast.FunctionDef, n_arguments: int | None) -> bool:
    """Say whether a function can be called with so many arguments; None is any number."""
    if n_arguments is None:
        return True
    most = len(function.args.posonlyargs) + len(function.args.args)
    least = most - len(function.args.defaults)
    return least <= n_arguments and (n_arguments <= most or function.args.vararg is not None)
