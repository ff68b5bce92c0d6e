"""Fractions and percentages; answers are reduced fractions or whole numbers."""

import random
from fractions import Fraction

from trillium_math.problems.problem import Draft, Family

FAMILY = Family("fractions_percent")


def _reduce(numerator: int, denominator: int) -> str:
    """Return 6/4 = 3/2, or the fraction alone when it is reduced."""
    given, reduced = f"{numerator}/{denominator}", str(Fraction(numerator, denominator))
    return given if given == reduced else f"{given} = {reduced}"


@FAMILY.template()
def add_fractions(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the sum of two fractions."""
    top = 4 + 3 * difficulty
    b, d = rng.randint(2, top), rng.randint(2, top)
    a, c = rng.randint(1, b - 1), rng.randint(1, d - 1)
    total = Fraction(a, b) + Fraction(c, d)
    up = a * d + c * b
    return Draft(
        f"Add {a}/{b} and {c}/{d}. Give the result as a fraction.",
        str(total),
        (
            f"Over the denominator {b} * {d} = {b * d} the numerators are {a} * {d} = {a * d} and "
            f"{c} * {b} = {c * b}.",
            f"The sum of the numerators is {a * d} + {c * b} = {up}.",
            f"The sum is {_reduce(up, b * d)}.",
        ),
        f"from fractions import Fraction\nprint(Fraction({a}, {b}) + Fraction({c}, {d}))",
    )


@FAMILY.template()
def discount(rng: random.Random, difficulty: int) -> Draft:
    """Ask for a price after a discount."""
    percent = 5 * rng.randint(1, 4 + 2 * difficulty)
    price = 20 * rng.randint(2, 4 + 10 * difficulty)
    off = price * percent // 100
    return Draft(
        f"A coat costs {price} dollars. It is sold with a discount of {percent} percent. How many "
        "dollars does it cost now?",
        str(price - off),
        (
            f"The discount is {price} * {percent} / 100 = {off} dollars.",
            f"The new price is {price} - {off} = {price - off} dollars.",
        ),
        f"off = {price} * {percent} // 100\nprint({price} - off)",
    )


@FAMILY.template()
def percent_of(rng: random.Random, difficulty: int) -> Draft:
    """Ask for a percentage of a number."""
    percent, whole = rng.randint(2, 15 * difficulty + 10), 100 * rng.randint(1, 3 * difficulty)
    return Draft(
        f"What is {percent}% of {whole}?",
        str(percent * whole // 100),
        (f"{percent} / 100 * {whole} = {percent * whole // 100}.",),
        f"print({percent} * {whole} // 100)",
    )


@FAMILY.template()
def multiply_fractions(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the product of two fractions."""
    top = 4 + 3 * difficulty
    a, b, c, d = (rng.randint(2, top) for _ in range(4))
    product = Fraction(a * c, b * d)
    return Draft(
        f"Multiply {a}/{b} by {c}/{d}. Give the result as a fraction.",
        str(product),
        (
            f"Numerators: {a} * {c} = {a * c}.",
            f"Denominators: {b} * {d} = {b * d}.",
            f"The product is {_reduce(a * c, b * d)}.",
        ),
        f"from fractions import Fraction\nprint(Fraction({a}, {b}) * Fraction({c}, {d}))",
    )


@FAMILY.template()
def money_left(rng: random.Random, difficulty: int) -> Draft:
    """Ask what is left after a part was spent."""
    b = rng.randint(3, 5 + difficulty)
    a, whole = rng.randint(1, b - 1), b * rng.randint(2, 6 * difficulty)
    spent = whole * a // b
    who = rng.choice(("A family", "A class", "A shop", "A team"))
    return Draft(
        f"{who} has {whole} dollars and spends {a}/{b} of it. How many dollars are left?",
        str(whole - spent),
        (
            f"{whole} * {a} / {b} = {spent} dollars are spent.",
            f"{whole} - {spent} = {whole - spent} dollars are left.",
        ),
        f"spent = {whole} * {a} // {b}\nprint({whole} - spent)",
    )


@FAMILY.template()
def price_rise(rng: random.Random, difficulty: int) -> Draft:
    """Ask for an amount after it rose by some percent."""
    percent, price = 5 * rng.randint(1, 4 + 2 * difficulty), 20 * rng.randint(2, 6 + 8 * difficulty)
    more = price * percent // 100
    thing = rng.choice(("The rent of a flat", "The price of a ticket", "A wage"))
    return Draft(
        f"{thing} is {price} dollars and rises by {percent} percent. How many dollars is it then?",
        str(price + more),
        (
            f"The rise is {price} * {percent} / 100 = {more} dollars.",
            f"{price} + {more} = {price + more} dollars.",
        ),
        f"more = {price} * {percent} // 100\nprint({price} + more)",
    )


@FAMILY.template(practice=True)
def share_in_percent(rng: random.Random, difficulty: int) -> Draft:
    """Ask what percentage a part is."""
    percent, whole = 5 * rng.randint(1, 19), 20 * rng.randint(1, 5 * difficulty)
    part = whole * percent // 100
    return Draft(
        f"{part} of the {whole} pupils of a school come by bus. What percent of them is that?",
        str(percent),
        (f"100 * {part} = {100 * part}.", f"{100 * part} / {whole} = {percent}."),
        f"print(100 * {part} // {whole})",
    )


@FAMILY.template(practice=True)
def subtract_fractions(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the difference of two fractions."""
    top = 4 + 3 * difficulty
    b, d = rng.randint(2, top), rng.randint(2, top)
    a, c = rng.randint(1, 2 * b), rng.randint(1, d)
    result, over = Fraction(a, b) - Fraction(c, d), a * d - c * b
    return Draft(
        f"Subtract {c}/{d} from {a}/{b}. Give the result as a fraction.",
        str(result),
        (
            f"Over the denominator {b} * {d} = {b * d} the numerators are {a} * {d} = {a * d} and "
            f"{c} * {b} = {c * b}.",
            f"The difference of the numerators is {a * d} - {c * b} = {over}.",
            f"The difference is {_reduce(over, b * d)}.",
        ),
        f"from fractions import Fraction\nprint(Fraction({a}, {b}) - Fraction({c}, {d}))",
    )


@FAMILY.template(held_out=True)
def remaining_part(rng: random.Random, difficulty: int) -> Draft:
    """Ask what is left after two parts were used, the second of the rest."""
    b, d = rng.randint(2, 4 + difficulty), rng.randint(2, 4 + difficulty)
    litres = b * d * rng.randint(1, 4 * difficulty)
    first = litres // b
    second = (litres - first) // d
    left = litres - first - second
    return Draft(
        f"A tank holds {litres} litres. First 1/{b} of it is used, then 1/{d} of what is left. "
        "How many litres remain?",
        str(left),
        (
            f"First {litres} / {b} = {first} litres are used.",
            f"That leaves {litres} - {first} = {litres - first} litres.",
            f"Then {litres - first} / {d} = {second} litres are used.",
            f"The rest is {litres - first} - {second} = {left} litres.",
        ),
        f"left = {litres} - {litres} // {b}\nprint(left - left // {d})",
    )


@FAMILY.template(held_out=True)
def percent_change(rng: random.Random, difficulty: int) -> Draft:
    """Ask by how many percent a number grew."""
    percent, base = 5 * rng.randint(1, 6 + 4 * difficulty), 20 * rng.randint(1, 8 * difficulty)
    more = base * percent // 100
    return Draft(
        f"A club grew from {base} to {base + more} members. By how many percent did it grow?",
        str(percent),
        (
            f"It grew by {base + more} - {base} = {more} members.",
            f"In percent that is 100 * {more} / {base} = {percent}.",
        ),
        f"more = {base + more} - {base}\nprint(100 * more // {base})",
    )
