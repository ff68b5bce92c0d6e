r"""Formulas in LaTeX or plain notation to nested tuples: a small parser with hard limits.

A node is `(kind, ...)`: ("num", "3/4", digits), ("sym", "x"), ("const", "pi"), ("add", a, b),
("mul", a, b), ("div", a, b), ("neg", a), ("pow", a, b), ("func", name, a, ...). `digits` counts
the significant digits of a decimal literal and is 0 for whole numbers. Nothing is evaluated here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

from trillium_math.grading.numerals import literal, repeating
from trillium_math.grading.tokens import (
    CONSTANTS,
    FUNCTIONS,
    GREEK,
    TRIGONOMETRIC,
    NotAFormula,
    tokenise,
)

Node = tuple[object, ...]

_MAX_DEPTH = 30
_SPELLED = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log"}
_INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
_TIMES = frozenset({"*", r"\cdot", r"\times", r"\ast"})
_INFIX = {r"\over": ("div",), r"\choose": ("func", "binomial")}
_DIVIDE = frozenset({"/", r"\div"})
_CLOSERS = {"(": ")", "[": "]", "{": "}"}
_FENCES = {
    r"\lfloor": (r"\rfloor", "floor"),
    r"\lceil": (r"\rceil", "ceil"),
    r"\lvert": (r"\rvert", "abs"),
}


def parse_formula(text: str) -> Node:
    """Parse one formula without relations, commas or environments; raises NotAFormula."""
    return _Parser(tokenise(text)).group(None)


def symbols_of(node: Node) -> frozenset[str]:
    """Return the names of the free symbols."""
    if node[0] == "sym":
        return frozenset({str(node[1])})
    parts = [symbols_of(part) for part in node[1:] if isinstance(part, tuple)]
    return frozenset().union(*parts)


class _Parser:
    """Read a sum of products of powers, by recursive descent."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._bare_at = -1
        self._n_bars = 0
        self._is_angle = False

    @property
    def next(self) -> str | None:
        return self._ahead(0)

    def _ahead(self, n_tokens: int) -> str | None:
        at = self._at + n_tokens
        return self._tokens[at][1] if at < len(self._tokens) else None

    def _kind(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _take(self, wanted: str | None = None) -> str:
        token = self.next
        if token is None or (wanted is not None and token != wanted):
            raise NotAFormula(str(token))
        self._at += 1
        return token

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise NotAFormula("too deep")
        yield
        self._depth -= 1

    def group(self, closer: str | None) -> Node:
        r"""Read up to a closing bracket, or to the end; `a \over b` divides all there is."""
        n_bars, self._n_bars = self._n_bars, 0
        node = self.sum()
        if self.next in _INFIX:
            infix = _INFIX[self._take()]
            node = (*infix, node, self.sum())
        if self.next != closer:
            raise NotAFormula(str(self.next))
        self._at += 1
        self._n_bars = n_bars
        return node

    def sum(self) -> Node:
        with self._deeper():
            node = self._product()
            while self.next in {"+", "-"}:
                sign = self._take()
                term = self._product()
                node = ("add", node, term if sign == "+" else ("neg", term))
        return node

    def _product(self) -> Node:
        if self.next in {"+", "-"}:
            sign = self._take()
            with self._deeper():
                node = self._product()
            return node if sign == "+" else ("neg", node)
        node = self._power()
        while True:
            if self.next in _TIMES:
                self._take()
                node = ("mul", node, self._signed_power())
            elif self.next in _DIVIDE:
                self._take()
                node = ("div", node, self._signed_power())
            elif self._starts_factor():
                node = ("mul", node, self._power())
            else:
                return node

    def _signed_power(self, *, is_bare: bool = False) -> Node:
        signs = 0
        while self.next in {"+", "-"}:
            signs += self._take() == "-"
        if is_bare:
            self._bare_at = self._at
        node = self._power()
        return ("neg", node) if signs % 2 else node

    def _starts_factor(self) -> bool:
        kind, token = self._kind(), self.next
        if kind == "word" or token in {"(", "["} or (token == "{" and self._at > 0):
            return True
        if kind == "num":
            # 1 234 may be anything, A1 is a label and x2 may be a power; n2^k is a product.
            before = self._tokens[self._at - 1][0]
            return before != "num" and (before != "word" or self._ahead(1) in {"^", "**"})
        if token == "|":  # behind an open bar it closes
            return self._n_bars == 0
        return kind == "cmd" and token not in {
            r"\rfloor", r"\rceil", r"\rvert", r"\}", r"\%", *_TIMES, *_DIVIDE, *_INFIX
        }  # fmt: skip

    def _power(self) -> Node:
        base = self._postfix()
        if self.next not in {"^", "**"}:
            return base
        self._take()
        if self.next == r"\circ":
            self._take()
            return self._degrees(base)
        return ("pow", base, self._exponent())

    def _degrees(self, number: Node) -> Node:
        """Return the angle where it is an argument; elsewhere degrees are a unit."""
        radians = ("div", ("mul", number, ("const", "pi")), ("num", "180", 0))
        return radians if self._is_angle else number

    def _exponent(self) -> Node:
        with self._deeper():
            return self._signed_power(is_bare=True)

    def _postfix(self) -> Node:
        node = self._primary()
        while self.next == "!":
            self._take()
            node = ("func", "factorial", node)
        return node

    def _primary(self) -> Node:
        kind, token = self._kind(), self._take()
        if kind == "num":
            return self._number(token)
        if kind == "word":
            return self._name(token)
        if token in _CLOSERS:
            return self.group(_CLOSERS[token])
        if token == "|":
            self._n_bars += 1
            node = self.sum()
            self._take("|")
            self._n_bars -= 1
            return ("func", "abs", node)
        if kind == "cmd":
            return self._command(token)
        raise NotAFormula(token)

    def _number(self, token: str) -> Node:
        whole = literal(token)
        if self.next == r"\overline" and "." in token:
            self._take()
            self._take("{")
            period = self._take()
            self._take("}")
            return repeating(token, period)
        is_bare = self._bare_at == self._at - 1
        if self.next != r"\frac" or not token.isdigit() or is_bare:
            return whole
        # 7\frac{3}{4} is a mixed number; 2\frac{3}{2}, 2\frac{x}{3} and x^2\frac{3}{4} are
        # products.
        start = self._at
        fraction = self._primary()
        numbers = [part for part in fraction[1:] if isinstance(part, tuple) and part[0] == "num"]
        if len(numbers) == 2 and 0 < Fraction(str(numbers[0][1])) < Fraction(str(numbers[1][1])):
            return ("add", whole, fraction)
        self._at = start
        return whole

    def _name(self, token: str) -> Node:
        if token in FUNCTIONS:
            return self._call(token)
        if token in CONSTANTS and self.next != "_":
            return ("const", CONSTANTS[token])
        name = token
        if self.next == "_":
            self._take()
            name += "_" + self._subscript()
        return ("sym", name)

    def _subscript(self) -> str:
        if self.next != "{":
            return self._take()
        self._take()
        parts = []
        while self.next not in {"}", None}:
            parts.append(self._take())
        self._take("}")
        return "".join(parts)

    def _command(self, token: str) -> Node:
        name = token[1:]
        if name == "frac":
            return ("div", self._argument(), self._argument())
        if name == "binom":
            return ("func", "binomial", self._argument(), self._argument())
        if name == "sqrt":
            if self.next == "[":
                self._take()
                degree = self.group("]")
                return ("pow", self._argument(), ("div", ("num", "1", 0), degree))
            return ("func", "sqrt", self._argument())
        if token in _FENCES:
            closer, function = _FENCES[token]
            return ("func", function, self.group(closer))
        if name in FUNCTIONS or name in CONSTANTS or name in GREEK:
            return self._name(name)
        raise NotAFormula(token)

    def _argument(self) -> Node:
        r"""Read {...} or one digit or letter: \frac12 has two arguments."""
        if self._kind() == "num" and len(str(self.next)) > 1 and "." not in str(self.next):
            digits = self._take()
            self._at -= 1
            self._tokens[self._at] = ("num", digits[1:])
            return literal(digits[0])
        if self.next == "-":
            self._take()
            return ("neg", self._argument())
        self._bare_at = self._at
        if self.next == "{":
            return self._postfix()
        with self._deeper():
            return self._postfix()

    def _call(self, name: str) -> Node:
        base: Node | None = None
        if self.next == "_" and name == "log":
            self._take()
            base = self._argument()
        power: Node | None = None
        if self.next in {"^", "**"}:
            self._take()
            power = self._exponent()
        name = _SPELLED.get(name, name)
        if power == ("neg", ("num", "1", 0)) and name in _INVERSE:
            name, power = _INVERSE[name], None
        is_angle, self._is_angle = self._is_angle, name in TRIGONOMETRIC
        node = ("func", name, self._call_argument(), *(() if base is None else (base,)))
        self._is_angle = is_angle
        if name == "cbrt":
            node = ("pow", node[2], ("num", "1/3", 0))
        return node if power is None else ("pow", node, power)

    def _call_argument(self) -> Node:
        """Read (...) or the product that follows: sin 2x is sin(2x), sin x cos x is a product."""
        if self.next in {"(", "{", "[", "|"}:
            return self._primary()
        with self._deeper():
            node = self._power()
            while self._starts_factor() and str(self.next).lstrip("\\") not in FUNCTIONS:
                node = ("mul", node, self._power())
        return node
