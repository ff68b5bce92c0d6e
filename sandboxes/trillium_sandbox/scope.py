"""The names that a test finds, in the order of plain execution: its own, the candidate's, Python's.

What the candidate defines under a name counts, even where Python has the same name; what it only
imported is taken from the judge's own library. The first name that a test takes from the candidate
is its entry point, where none was given; another one sets `Peer.leant`.
"""

from __future__ import annotations

import builtins
import contextlib
import re
from opcode import opmap
from types import CodeType

from trillium_sandbox.assertions import only_asserts
from trillium_sandbox.codec import MUTABLE
from trillium_sandbox.decode import decode
from trillium_sandbox.named import from_library, library_name
from trillium_sandbox.remote import Remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator, Mapping

    from trillium_sandbox.peer import Peer

# fmt: off
_MODULES = frozenset({
    "bisect", "cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools",
    "heapq", "itertools", "json", "math", "operator", "random", "re", "statistics", "string",
    "typing",
})
# fmt: on
_FROM_MODULES = {
    "Counter": "collections",
    "OrderedDict": "collections",
    "defaultdict": "collections",
    "deque": "collections",
    "Decimal": "decimal",
    "Fraction": "fractions",
    "isclose": "math",
    "sqrt": "math",
}
_LOOKS_UP = frozenset({"eval", "exec", "globals", "locals", "vars", "dir"})
_PROCESS = """
redirect_stdout redirect_stderr stdout stderr stdin patch mock environ putenv getenv chdir getcwd
cwd open setcontext getcontext localcontext setlocale tempfile catch_warnings assertWarns
assertWarnsRegex assertLogs assertNoLogs
"""
_OF_ITS_PROCESS = frozenset(_PROCESS.split())
_SETTINGS = "seed setstate setrecursionlimit logging warnings getpid id is_ is_not"
_PREPARES = frozenset(_SETTINGS.split())
_INSIDE = """
type vars dir id inspect signature pickle gc sys weakref dis ast asyncio contextvars threading
dataclasses
"""
_LOOKS_INSIDE = frozenset(_INSIDE.split())
_BEHIND = """
__context__ __traceback__ format_exc format_exception format_tb extract_tb walk_tb exc_text
TracebackException tb_frame tb_next tb_lineno obj
"""
_LOOKS_BEHIND = frozenset(_BEHIND.split())
_COPIED = (str, bytes, tuple, frozenset, int, float, complex, range)
_ABSENT = object()
_IS = "is in a test"
_SINGLE = (type(None), bool, type(...))
_COMPARES = re.compile(r"\bis\b(?!\s+(?:not\s+)?(?:None|True|False)\b)")
_WORD = re.compile(r"[^\W\d]\w*")
_MATCH_CLASS = opmap["MATCH_CLASS"]


class Names(dict[str, object]):
    """A test's global names."""

    def __init__(
        self,
        peer: Peer,
        entry_point: str | None,
        candidate: object,
        origins: Mapping[str, object],
        uses: frozenset[str] | None = None,
    ) -> None:
        """Begin with the entry point; `origins` is what `origins_of` said of the candidate.

        `uses` are the names that its functions may look up, None for any.
        """
        super().__init__(__name__="tests", __builtins__=builtins)
        self.peer = peer
        self.entry_point = entry_point
        self.origins = origins
        self.uses = uses
        self.taken = {entry_point}
        if entry_point is not None:
            self[entry_point] = self["candidate"] = candidate
        self[_IS] = self._is

    def __missing__(self, name: str) -> object:
        """Find a name that the test has not bound."""
        own = _own(name)
        origin = self.origins.get(name, _ABSENT)
        if own is not _ABSENT and (origin is _ABSENT or (origin and origin == _origin(own))):
            return own
        if origin == name:
            return from_library(name)
        try:
            value = self.peer.ask("name", name)
        except NameError:
            raise KeyError(name) from None
        if self.entry_point is None:
            self.entry_point = name
        elif name != self.entry_point:
            self.peer.leant = True
        self.taken.add(name)
        if issubclass(type(value), Remote | type):  # data may be another the next time
            self[name] = value
        return value

    def _is(self, left: object, right: object) -> bool:
        """Compare identities, which a value loses that has crossed and come back as a copy."""
        if issubclass(type(left), Remote) is not issubclass(type(right), Remote):
            self.peer.leant = True  # one of the library's may be the same in one process
        elif left is not right and type(left) is type(right):
            if issubclass(type(left), _COPIED):
                self.peer.leant |= left == right
            elif type(left) in MUTABLE:
                self.peer.leant |= self.peer.copies.has_twins
        return left is right

    def have_replaced(self, *, in_use: bool) -> bool:
        """Return whether the test has bound names of the candidate's, which does not see it.

        Those `in_use`: that a function of the candidate's may look up.
        """
        return any(
            origin is None or origin != _origin(self[name])
            for name, origin in self.origins.items()
            if name in self and name not in self.taken and not name.startswith("__")
            if not in_use or self.uses is None or name in self.uses
        )

    def bind(self, words: frozenset[str]) -> None:
        """Bind those of `words` that the candidate defines, before anything looks for them."""
        for word in words:
            if word in self.origins and word not in self:
                with contextlib.suppress(KeyError):  # it was there when the candidate was loaded
                    self[word] = self[word]


class Reading:
    """What can be told from a test's text and code alone."""

    __slots__ = ("early", "is_of_its_process", "looks_behind", "looks_inside", "prepares")

    def __init__(self, text: str, code: CodeType) -> None:
        """Read a test."""
        parts = [*_parts(code)]
        used = frozenset(name for part in parts for name in part.co_names)
        bodies = [part for part in parts if part is not code and not part.co_flags & 1]
        early = {name for part in bodies for name in part.co_names}
        if used & _LOOKS_UP:
            early.update(_WORD.findall(text))
        self.early = frozenset(early)
        """Names that Python looks up where `Names.__missing__` is not asked: in class bodies, in
        code that is a text."""
        self.is_of_its_process = bool(used & _OF_ITS_PROCESS)
        """Whether it may change what the candidate, in a process of its own, does not see."""
        self.prepares = bool(used & _PREPARES)
        """Whether it may count on one process for both; the candidate then has reason to fail."""
        matches = any(_MATCH_CLASS in part.co_code[::2] for part in parts)
        self.looks_inside = bool(used & _LOOKS_INSIDE) or matches
        """Whether it may look at an object in a way that does not reach the other side."""
        self.looks_behind = bool(used & _LOOKS_BEHIND)
        """Whether it may look at an exception for what does not cross with it."""


class Tests:
    """The tests of a judge: their texts, and what became of each where it has been read."""

    __slots__ = ("entry_point", "read", "texts")

    def __init__(self, content: bytes) -> None:
        """`content`: (entry point, tests) in codec."""
        self.entry_point: str | None
        self.texts: tuple[str, ...]
        self.entry_point, self.texts = decode(content)  # type: ignore[misc]
        self.read: list[tuple[CodeType, Reading] | SyntaxError | None] = [None] * len(self.texts)

    def get(self, number: int) -> tuple[CodeType, Reading] | SyntaxError:
        """Return one of them, read."""
        return self.read[number] or read_test(self.texts[number], number)

    def read_all(self) -> None:
        """Read all of them once for all forks to come, as far as memory goes."""
        try:
            for number in range(len(self.texts)):
                self.read[number] = self.get(number)
        except MemoryError:
            return

    @property
    def only_assert(self) -> bool:
        """Return whether they leave the process that runs them as it was, once they are read."""
        return all(
            type(one) is tuple and only_asserts(one[0], self.entry_point) for one in self.read
        )


def read_test(text: str, number: int) -> tuple[CodeType, Reading] | SyntaxError:
    """Return a test's code, in which `Names` compares identities, and what can be told from it."""
    name = f"test_{number}.py"
    try:
        code = compile(_with_is(text) or text, name, "exec", dont_inherit=True)
        return code, Reading(text, code)
    except SyntaxError as error:
        return error
    except (ValueError, RecursionError, OverflowError) as error:
        return SyntaxError(str(error))


def _with_is(text: str) -> ast.Module | None:
    if not _COMPARES.search(text):
        return None
    import ast

    class Identities(ast.NodeTransformer):
        def visit_Compare(self, node: ast.Compare) -> ast.AST:
            self.generic_visit(node)
            sides = [node.left, *node.comparators]
            if len(sides) != 2 or not isinstance(node.ops[0], ast.Is | ast.IsNot):
                return node
            if any(
                isinstance(side, ast.Constant) and type(side.value) in _SINGLE for side in sides
            ):
                return node
            call: ast.expr = ast.Call(ast.Name(_IS, ast.Load()), sides, [])
            if isinstance(node.ops[0], ast.IsNot):
                call = ast.UnaryOp(ast.Not(), call)
            return ast.fix_missing_locations(ast.copy_location(call, node))

    return Identities().visit(ast.parse(text))  # type: ignore[no-any-return]


def origins_of(names: Mapping[str, object]) -> dict[str, object]:
    """Return the names of a candidate, each with the one it has in the standard library, if any."""
    return {name: _origin(value) for name, value in [*names.items()] if type(name) is str}


def uses_of(code: CodeType) -> frozenset[str] | None:
    """Return the names that functions of a program may look up, None where it may be any."""
    used = {name for part in _parts(code) if part is not code for name in part.co_names}
    looked_up = used.union(code.co_names) & _LOOKS_UP
    return None if looked_up else frozenset(used)


def _origin(value: object) -> str | None:
    try:
        return library_name(value)
    except Exception:
        return None


def _own(name: str) -> object:
    if hasattr(builtins, name):
        return getattr(builtins, name)
    if name in _MODULES:
        return __import__(name)
    if name in _FROM_MODULES:
        return getattr(__import__(_FROM_MODULES[name]), name)
    return _ABSENT


def _parts(code: CodeType) -> Iterator[CodeType]:
    yield code
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _parts(part)
