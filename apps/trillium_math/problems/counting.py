"""Counting: arrangements, selections, paths and chances."""

import math
import random
from fractions import Fraction

from trillium_math.problems.problem import Draft, Family

FAMILY = Family("counting")


@FAMILY.template()
def arrange_all(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the orders of n different things."""
    n = rng.randint(3, 4 + difficulty)
    things = rng.choice(("books", "runners", "paintings", "flags", "songs", "cups", "hats"))
    steps, product = [], 2
    for factor in range(3, n + 1):
        steps.append(f"{product} * {factor} = {product * factor}.")
        product *= factor
    return Draft(
        f"In how many orders can {n} different {things} be put in a row?",
        str(product),
        tuple(steps),
        f"import math\nprint(math.factorial({n}))",
    )


@FAMILY.template()
def choose_committee(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the number of committees."""
    n, k = rng.randint(5, 6 + 2 * difficulty), rng.randint(2, 2 + (difficulty + 1) // 2)
    ordered = math.perm(n, k)
    return Draft(
        f"How many committees of {k} people can be chosen from {n} people?",
        str(math.comb(n, k)),
        (
            f"In order: {' * '.join(str(n - i) for i in range(k))} = {ordered}.",
            f"Each committee is counted {math.factorial(k)} times: {ordered} / "
            f"{math.factorial(k)} = {math.comb(n, k)}.",
        ),
        f"import math\nprint(math.comb({n}, {k}))",
    )


@FAMILY.template()
def outfits(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the number of combinations of independent choices."""
    a, b, c = (rng.randint(2, 3 + 3 * difficulty) for _ in range(3))
    return Draft(
        f"A shop sells {a} kinds of shirts, {b} kinds of trousers and {c} kinds of hats. How many "
        "outfits with one of each are there?",
        str(a * b * c),
        (f"{a} * {b} = {a * b}.", f"{a * b} * {c} = {a * b * c}."),
        f"print({a} * {b} * {c})",
    )


@FAMILY.template()
def codes_with_digits(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the number of codes without repetition."""
    n, k = rng.randint(4, 5 + difficulty), rng.randint(2, 2 + difficulty // 2)
    factors = [n - i for i in range(k)]
    return Draft(
        f"How many codes of {k} different symbols can be made from {n} symbols, if the order "
        "matters?",
        str(math.perm(n, k)),
        (f"{' * '.join(map(str, factors))} = {math.perm(n, k)}.",),
        f"import math\nprint(math.perm({n}, {k}))",
    )


@FAMILY.template()
def two_groups(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the number of teams with members of two groups."""
    a, b = (rng.randint(3, 4 + 2 * difficulty) for _ in range(2))
    # No group gives more than it has.
    k, j = (min(rng.randint(1, 1 + (difficulty + 1) // 2), most) for most in (a, b))
    left, right = math.comb(a, k), math.comb(b, j)
    return Draft(
        f"In how many ways can {k} of {a} girls and {j} of {b} boys be chosen for a team?",
        str(left * right),
        (
            f"There are {left} ways to choose the girls and {right} to choose the boys.",
            f"{left} * {right} = {left * right}.",
        ),
        f"import math\nprint(math.comb({a}, {k}) * math.comb({b}, {j}))",
    )


@FAMILY.template()
def winning_ticket(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the chance that one ticket wins."""
    tickets = rng.randint(5, 12 + 10 * difficulty)
    wins = rng.randint(1, tickets - 1)
    chance = Fraction(wins, tickets)
    return Draft(
        f"There are {tickets} tickets in a drum, and {wins} of them win. What is the probability "
        "that a ticket wins? Give a reduced fraction.",
        str(chance),
        (
            f"{tickets} - {wins} = {tickets - wins} tickets do not win.",
            f"The probability is {wins} / {tickets} = {chance}.",
        ),
        f"from fractions import Fraction\nprint(Fraction({wins}, {tickets}))",
    )


@FAMILY.template(practice=True)
def handshakes(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the number of pairs."""
    n = rng.randint(4, 8 + 8 * difficulty)
    who = rng.choice(("guests at a party", "players of a club", "members of a band"))
    return Draft(
        f"All {n} {who} shake hands with one another once. How many handshakes are there?",
        str(n * (n - 1) // 2),
        (
            f"{n} * {n - 1} = {n * (n - 1)} counts each twice.",
            f"{n * (n - 1)} / 2 = {n * (n - 1) // 2}.",
        ),
        f"import math\nprint(math.comb({n}, 2))",
    )


@FAMILY.template(practice=True)
def chance_of_other(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the chance not to draw a colour."""
    white, black = (rng.randint(1, 4 + 5 * difficulty) for _ in range(2))
    total = white + black
    chance = Fraction(black, total)
    return Draft(
        f"A box holds {white} white and {black} black stones. One stone is drawn at random. What "
        "is the probability that it is not white? Give a reduced fraction.",
        str(chance),
        (
            f"There are {white} + {black} = {total} stones.",
            f"The probability is {black} / {total} = {chance}.",
        ),
        f"from fractions import Fraction\nprint(Fraction({black}, {white} + {black}))",
    )


@FAMILY.template(held_out=True)
def grid_paths(rng: random.Random, difficulty: int) -> Draft:
    """Ask for shortest paths on a grid."""
    right, up = rng.randint(2, 3 + difficulty), rng.randint(2, 3 + difficulty)
    paths = math.comb(right + up, up)
    return Draft(
        f"How many shortest paths lead from one corner of a grid to the opposite one, with {right} "
        f"steps to the right and {up} steps up?",
        str(paths),
        (
            f"A path has {right} + {up} = {right + up} steps.",
            f"Choosing which {up} of them go up gives {paths} paths.",
        ),
        f"import math\nprint(math.comb({right} + {up}, {up}))",
    )


@FAMILY.template(held_out=True)
def draw_a_ball(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the chance to draw one of two colours."""
    red, blue, green = (rng.randint(1, 3 + 4 * difficulty) for _ in range(3))
    total, good = red + blue + green, red + blue
    chance = Fraction(good, total)
    return Draft(
        f"A bag has {red} red, {blue} blue and {green} green balls. What is the probability that a "
        "ball drawn at random is red or blue? Give a reduced fraction.",
        str(chance),
        (
            f"There are {red} + {blue} + {green} = {total} balls.",
            f"Of these {red} + {blue} = {good} are red or blue.",
            f"The probability is {good} / {total} = {chance}.",
        ),
        f"from fractions import Fraction\nprint(Fraction({red} + {blue}, {red} + {blue} + "
        f"{green}))",
    )
