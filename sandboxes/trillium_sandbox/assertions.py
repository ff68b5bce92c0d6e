"""Tests that only assert: what they name and do cannot outlive them in the process that runs them.

Anything else might: a function, a loop, an attribute, a name that is assigned. Told apart by a list
of what is allowed, so that what is not known here, in another version of Python too, is not.
Imported in the zygote: standard library only, and little of it (see zygote.py).
"""

from __future__ import annotations

from opcode import opname
from types import CodeType

_CALLED = """
abs all any bool dict float frozenset int isinstance len list max min range repr round set sorted
str sum tuple
"""
_NAMES = frozenset(_CALLED.split())
_DONE = """
CACHE COPY EXTENDED_ARG JUMP_FORWARD NOP NOT_TAKEN POP_TOP PUSH_NULL RESUME RETURN_CONST
RETURN_VALUE SWAP TO_BOOL
LOAD_ASSERTION_ERROR LOAD_COMMON_CONSTANT LOAD_CONST LOAD_NAME LOAD_SMALL_INT RAISE_VARARGS
CALL CALL_FUNCTION_EX CALL_KW KW_NAMES PRECALL
BINARY_OP BINARY_SLICE BINARY_SUBSCR COMPARE_OP CONTAINS_OP
UNARY_INVERT UNARY_NEGATIVE UNARY_NOT UNARY_POSITIVE
BUILD_CONST_KEY_MAP BUILD_LIST BUILD_MAP BUILD_SET BUILD_SLICE BUILD_STRING BUILD_TUPLE
DICT_MERGE DICT_UPDATE LIST_APPEND LIST_EXTEND LIST_TO_TUPLE SET_UPDATE
CONVERT_VALUE FORMAT_SIMPLE FORMAT_VALUE FORMAT_WITH_SPEC
JUMP_IF_FALSE_OR_POP JUMP_IF_TRUE_OR_POP
POP_JUMP_FORWARD_IF_FALSE POP_JUMP_FORWARD_IF_NONE POP_JUMP_FORWARD_IF_NOT_NONE
POP_JUMP_FORWARD_IF_TRUE POP_JUMP_IF_FALSE POP_JUMP_IF_NONE POP_JUMP_IF_NOT_NONE
POP_JUMP_IF_TRUE
"""
_OPERATIONS = frozenset(_DONE.split())


def only_asserts(code: CodeType, entry_point: str | None) -> bool:
    """Return whether a test computes with what it calls, and does nothing else."""
    return (
        not code.co_exceptiontable
        and not any(isinstance(constant, CodeType) for constant in code.co_consts)
        and {opname[operation] for operation in code.co_code[::2]} <= _OPERATIONS
        and {*code.co_names} <= _NAMES | {entry_point, "candidate"}
    )
