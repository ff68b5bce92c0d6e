"""Labels that would read as products: the order ABC, the class 1A, the route A-B-C, the month May.

Of two labels every letter and its place count. Beside a formula a label is the product it reads as,
so that AB is A times B, and 2AB and xyz are no labels.
"""

import re

from trillium_math.grading.cleaning import drop_spaces

_LABEL = re.compile(r"[A-Z]{1,3}|1[A-Z]|[A-Z](?:-[A-Z])+|[A-Z][a-z]{2}")
# Three letters that can be spoken are a word: its case does not count.
_WORD = re.compile(r"[A-Z](?=[a-z]*[aeiou])[a-z]{2}")


def are_same_labels(one: str, other: str) -> bool | None:
    """Say whether two labels are the same; None where one side is no label."""
    one, other = drop_spaces(one), drop_spaces(other)
    if one.casefold() == other.casefold() and (_WORD.fullmatch(one) or _WORD.fullmatch(other)):
        return True
    return one == other if _LABEL.fullmatch(one) and _LABEL.fullmatch(other) else None
