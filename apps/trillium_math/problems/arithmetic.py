"""Arithmetic: sums, products, powers and their order."""

import random

from trillium_math.problems.problem import Draft, Family

FAMILY = Family("arithmetic")


def _top(difficulty: int) -> int:
    return (9, 20, 60, 150, 500)[difficulty - 1]


@FAMILY.template()
def sum_and_product(rng: random.Random, difficulty: int) -> Draft:
    """Ask for a + b * c."""
    top = _top(difficulty)
    a, b, c = rng.randint(2, top), rng.randint(2, top), rng.randint(2, 12)
    return Draft(
        f"Compute {a} + {b} * {c}.",
        str(a + b * c),
        (f"Multiply first: {b} * {c} = {b * c}.", f"Then add: {a} + {b * c} = {a + b * c}."),
        f"print({a} + {b} * {c})",
    )


@FAMILY.template()
def difference_of_products(rng: random.Random, difficulty: int) -> Draft:
    """Ask for a * b - c * d, which may be negative."""
    top = _top(difficulty)
    a, b, c, d = (rng.randint(2, top) for _ in range(4))
    left, right = a * b, c * d
    return Draft(
        f"What is {a} * {b} - {c} * {d}?",
        str(left - right),
        (
            f"{a} * {b} = {left}.",
            f"{c} * {d} = {right}.",
            f"{left} - {right} = {left - right}.",
        ),
        f"print({a} * {b} - {c} * {d})",
    )


@FAMILY.template()
def long_sum(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the sum of several numbers."""
    numbers = [rng.randint(2, _top(difficulty)) for _ in range(difficulty + 2)]
    steps, total = [], numbers[0]
    for number in numbers[1:]:
        steps.append(f"{total} + {number} = {total + number}.")
        total += number
    terms = " + ".join(map(str, numbers))
    return Draft(f"Find the sum {terms}.", str(total), tuple(steps), f"print({terms})")


@FAMILY.template()
def bracket_times(rng: random.Random, difficulty: int) -> Draft:
    """Ask for (a + b) * c."""
    top = _top(difficulty)
    a, b, c = rng.randint(2, top), rng.randint(2, top), rng.randint(2, 15)
    return Draft(
        f"Evaluate ({a} + {b}) * {c}.",
        str((a + b) * c),
        (f"{a} + {b} = {a + b}.", f"{a + b} * {c} = {(a + b) * c}."),
        f"print(({a} + {b}) * {c})",
    )


@FAMILY.template()
def square_and_product(rng: random.Random, difficulty: int) -> Draft:
    """Ask for a^2 + b * c."""
    a, b = rng.randint(2, 6 + 4 * difficulty), rng.randint(2, _top(difficulty))
    c, ask = rng.randint(2, 12), rng.choice(("Work out", "Find the value of", "Calculate"))
    return Draft(
        f"{ask} {a}^2 + {b} * {c}.",
        str(a * a + b * c),
        (
            f"{a}^2 = {a * a}.",
            f"{b} * {c} = {b * c}.",
            f"{a * a} + {b * c} = {a * a + b * c}.",
        ),
        f"print({a} ** 2 + {b} * {c})",
    )


@FAMILY.template()
def range_of_list(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the difference between the largest and the smallest of some numbers."""
    numbers = rng.sample(range(2, 12 + 3 * _top(difficulty)), difficulty + 3)
    listed, high, low = ", ".join(map(str, numbers)), max(numbers), min(numbers)
    return Draft(
        f"What is the difference between the largest and the smallest of {listed}?",
        str(high - low),
        (
            f"The largest is {high} and the smallest is {low}.",
            f"{high} - {low} = {high - low}.",
        ),
        f"numbers = [{listed}]\nprint(max(numbers) - min(numbers))",
    )


@FAMILY.template(practice=True)
def chain_in_words(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the result of operations told one after the other."""
    a, b = rng.randint(3, _top(difficulty)), rng.randint(2, 4 + 3 * difficulty)
    c = rng.randint(2, a * b - 1)
    start = rng.choice(("Start with", "Take the number", "Begin with"))
    return Draft(
        f"{start} {a}, multiply it by {b} and take away {c}. What do you get?",
        str(a * b - c),
        (f"{a} * {b} = {a * b}.", f"{a * b} - {c} = {a * b - c}."),
        f"print({a} * {b} - {c})",
    )


@FAMILY.template(practice=True)
def product_over_sum(rng: random.Random, difficulty: int) -> Draft:
    """Ask by how much a product exceeds a sum."""
    a, b = (rng.randint(3, 5 + _top(difficulty)) for _ in range(2))
    return Draft(
        f"By how much is the product of {a} and {b} larger than their sum?",
        str(a * b - a - b),
        (
            f"The product is {a} * {b} = {a * b}.",
            f"The sum is {a} + {b} = {a + b}.",
            f"{a * b} - {a + b} = {a * b - a - b}.",
        ),
        f"print({a} * {b} - ({a} + {b}))",
    )


@FAMILY.template(held_out=True)
def mean_of_list(rng: random.Random, difficulty: int) -> Draft:
    """Ask for an average that is a whole number."""
    count = difficulty + 2
    numbers = [rng.randint(2, _top(difficulty)) for _ in range(count - 1)]
    numbers.append(-sum(numbers) % count + count * rng.randint(0, _top(difficulty) // count + 1))
    total = sum(numbers)
    listed = ", ".join(map(str, numbers))
    return Draft(
        f"What is the average of {listed}?",
        str(total // count),
        (
            f"{' + '.join(map(str, numbers))} = {total}.",
            f"There are {count} numbers: {total} / {count} = {total // count}.",
        ),
        f"numbers = [{listed}]\nprint(sum(numbers) // len(numbers))",
    )


@FAMILY.template(held_out=True)
def power_less(rng: random.Random, difficulty: int) -> Draft:
    """Ask for a power minus a number."""
    base, exponent = rng.randint(2, 4 + 2 * difficulty), rng.randint(2, 2 + difficulty // 2)
    less = rng.randint(2, _top(difficulty))
    power = base**exponent
    return Draft(
        f"What do you get when you subtract {less} from {base}^{exponent}?",
        str(power - less),
        (f"{base}^{exponent} = {power}.", f"{power} - {less} = {power - less}."),
        f"print({base} ** {exponent} - {less})",
    )
