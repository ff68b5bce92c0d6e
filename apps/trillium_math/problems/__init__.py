"""Problems: eight families of our own, and readers for files and packages of others."""

from trillium_math.problems import (
    arithmetic,
    counting,
    fractions_percent,
    geometry,
    linear_equations,
    number_theory,
    rates,
    word_problems,
)
from trillium_math.problems.problem import (
    DIFFICULTIES,
    Draft,
    Family,
    Part,
    Problem,
    Split,
    Template,
    draw_problems,
)

FAMILIES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY
    for module in (
        arithmetic,
        word_problems,
        fractions_percent,
        linear_equations,
        number_theory,
        counting,
        rates,
        geometry,
    )
}

__all__ = [
    "DIFFICULTIES",
    "FAMILIES",
    "Draft",
    "Family",
    "Part",
    "Problem",
    "Split",
    "Template",
    "draw_problems",
]
