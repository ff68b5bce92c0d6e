"""Parse Python that others wrote, without its warnings on our terminal."""

import ast
import warnings


def parse(text: str) -> ast.Module:
    """Return the syntax tree of `text`; raises SyntaxError and whatever else `ast.parse` raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)
