"""Formulas to tokens, with a limit on their number, and the names that mean something."""

import re

_MAX_TOKENS = 400
_TOKEN = re.compile(
    r"\s*(?:(?P<num>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+(?![\w.]))?)"
    r"|(?P<cmd>\\[A-Za-z]+|\\[{}|%])|(?P<word>[A-Za-z]+)|(?P<op>\*\*|[-+*/^!()\[\]{}|_]))"
)
_FUNCTION_NAMES = (
    "sin cos tan sec csc cot sinh cosh tanh arcsin arccos arctan asin acos atan log ln lg exp sqrt "
    "abs floor ceil factorial binomial cbrt"
)
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
TRIGONOMETRIC = frozenset({"sin", "cos", "tan", "sec", "csc", "cot"})
CONSTANTS = {"pi": "pi", "e": "e", "i": "i"} | dict.fromkeys(
    ("infty", "infinity", "inf", "oo"), "oo"
)
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta kappa lambda mu nu xi rho "
    "sigma tau phi varphi chi psi omega Gamma Delta Theta Lambda Sigma Phi Psi Omega ell"
)
GREEK = frozenset(_GREEK_NAMES.split())
# Short words that would otherwise be products of letters.
_SHORT_WORDS = "yes no odd and or not one two six ten red day sun mon tue wed thu fri"
_WORDS = frozenset(_SHORT_WORDS.split())


class NotAFormula(Exception):
    """Say that a text is no formula this parser knows; it is compared as text then."""


def tokenise(text: str) -> list[tuple[str, str]]:
    """Return kind and text of each token; raises NotAFormula for what is none."""
    tokens: list[tuple[str, str]] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or len(tokens) >= _MAX_TOKENS:
            raise NotAFormula(text)
        kind = str(match.lastgroup)
        tokens.extend(_split_word(match[kind]) if kind == "word" else [(kind, match[kind])])
        at = match.end()
    return tokens


def _split_word(word: str) -> list[tuple[str, str]]:
    """Return a function or constant as one token, a few letters as a product, else refuse."""
    if word in FUNCTIONS or word in CONSTANTS or word in GREEK:
        return [("word", word)]
    if len(word) > 3 or word.lower() in _WORDS:
        raise NotAFormula(word)
    return [("word", letter) for letter in word]
