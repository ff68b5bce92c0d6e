"""The program that runs the cells of a trajectory: all in one namespace, only the last one heard.

It is text for the sandbox and needs the standard library only. A cell that fails does not stop the
cells after it, as in a notebook; the value of a last expression is printed as there.
"""

import hashlib
import json
import re
from collections.abc import Sequence

_CALL = re.compile(r"```(?:python|py)[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)

# The modules ast, contextlib, json, random and traceback would cost five times the rest of a call.
_DRIVER = """
import io, sys

def run(source, names):
    try:
        tree = compile(source, "<cell>", "exec", 0x400)  # only parse
        is_value = tree.body and type(tree.body[-1]).__name__ == "Expr"
        last = tree.body.pop() if is_value else None
        exec(compile(tree, "<cell>", "exec"), names)
        if last is not None:
            import _ast
            value = eval(compile(_ast.Expression(last.value), "<cell>", "eval"), names)
            if value is not None:
                print(value)
    except SystemExit:
        pass
    except BaseException as error:
        line, step = None, error.__traceback__
        while step is not None:
            if step.tb_frame.f_code.co_filename == "<cell>":
                line = step.tb_lineno
            step = step.tb_next
        if isinstance(error, SyntaxError):
            line = error.lineno
        where = f"line {line}: " if line else ""
        print(f"{where}{type(error).__name__}: {error}")
        print(MARK, file=sys.stderr)

names = {"__name__": "__main__"}
if any("random" in cell for cell in CELLS):
    import random
    random.seed(0)
for cell in CELLS[:-1]:
    heard = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = io.StringIO()
    run(cell, names)
    sys.stdout, sys.stderr = heard
run(CELLS[-1], names)
"""
_MARK = "cell failed "


def find_call(turn: str) -> str | None:
    """Return the code of the first Python block of a turn; an unclosed one runs to the end."""
    match = _CALL.search(turn)
    return match[1].strip("\n") if match and match[1].strip() else None


def make_program(cells: Sequence[str]) -> str:
    """Return the program that runs `cells` in order and prints what the last one says."""
    # The mark on stderr tells an exception from printed text; it is no security measure.
    return f"CELLS = {list(cells)!a}\nMARK = {failure_mark(cells)!r}\n{_DRIVER}"


def failure_mark(cells: Sequence[str]) -> str:
    """Return what the program writes to stderr when its last cell raises."""
    return _MARK + hash_cells(cells)[:16]


def hash_cells(cells: Sequence[str]) -> str:
    """Name a prefix of cells by content."""
    return hashlib.sha256(json.dumps(list(cells)).encode()).hexdigest()
