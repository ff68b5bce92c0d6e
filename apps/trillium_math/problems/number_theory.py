"""Number theory: divisors, remainders, digits and powers."""

import math
import random

from trillium_math.problems.problem import Draft, Family

FAMILY = Family("number_theory")


@FAMILY.template()
def greatest_common_divisor(rng: random.Random, difficulty: int) -> Draft:
    """Ask for a greatest common divisor."""
    common = rng.randint(2, 6 * difficulty)
    a, b = common * rng.randint(2, 5 * difficulty + 2), common * rng.randint(2, 5 * difficulty + 2)
    steps, x, y = [], a, b
    while y:
        steps.append(f"{x} leaves the remainder {x % y} when divided by {y}.")
        x, y = y, x % y
    return Draft(
        f"What is the greatest common divisor of {a} and {b}?",
        str(math.gcd(a, b)),
        (*steps, f"The last divisor is {x}."),
        f"import math\nprint(math.gcd({a}, {b}))",
    )


@FAMILY.template()
def remainder(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the remainder of a division."""
    divisor, number = rng.randint(3, 5 + 6 * difficulty), rng.randint(20, 40 * 4**difficulty)
    whole = number // divisor
    return Draft(
        f"What is the remainder when {number} is divided by {divisor}?",
        str(number % divisor),
        (
            f"{divisor} fits {whole} times: {divisor} * {whole} = {divisor * whole}.",
            f"{number} - {divisor * whole} = {number % divisor}.",
        ),
        f"print({number} % {divisor})",
    )


@FAMILY.template()
def count_divisors(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the number of divisors."""
    number = rng.randint(6, 24 * difficulty * difficulty)
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return Draft(
        f"How many positive divisors does {number} have?",
        str(len(divisors)),
        (
            f"The divisors of {number} are {', '.join(map(str, divisors))}.",
            f"There are {len(divisors)}.",
        ),
        f"print(sum({number} % d == 0 for d in range(1, {number} + 1)))",
    )


@FAMILY.template()
def digit_sum(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the sum of the digits of a product."""
    a, b = rng.randint(5, 15 * difficulty), rng.randint(5, 15 * difficulty)
    digits = list(map(int, str(a * b)))
    return Draft(
        f"What is the sum of the digits of {a} * {b}?",
        str(sum(digits)),
        (
            f"{a} * {b} = {a * b}.",
            f"{' + '.join(map(str, digits))} = {sum(digits)}.",
        ),
        f"print(sum(int(digit) for digit in str({a} * {b})))",
    )


@FAMILY.template()
def count_multiples(rng: random.Random, difficulty: int) -> Draft:
    """Ask how many numbers up to a bound are divisible by another."""
    divisor, top = rng.randint(2, 4 + 4 * difficulty), rng.randint(20, 30 * 3**difficulty)
    return Draft(
        f"How many whole numbers from 1 to {top} are divisible by {divisor}?",
        str(top // divisor),
        (
            f"The last one is {divisor} * {top // divisor} = {divisor * (top // divisor)}.",
            f"So there are {top // divisor}.",
        ),
        f"print({top} // {divisor})",
    )


@FAMILY.template()
def remainder_of_power(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the remainder of a power."""
    base, exponent = rng.randint(2, 6 + difficulty), rng.randint(2, 3 + 2 * difficulty)
    divisor = rng.randint(3, 9 + 4 * difficulty)
    power = base**exponent
    return Draft(
        f"Divide {base}^{exponent} by {divisor}. What is the remainder?",
        str(power % divisor),
        (
            f"{base}^{exponent} = {power}.",
            f"{divisor} * {power // divisor} = {divisor * (power // divisor)}.",
            f"{power} - {divisor * (power // divisor)} = {power % divisor}.",
        ),
        f"print(pow({base}, {exponent}, {divisor}))",
    )


@FAMILY.template(practice=True)
def next_multiple(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the smallest multiple above a number."""
    divisor, number = rng.randint(3, 6 + 6 * difficulty), rng.randint(20, 30 * 3**difficulty)
    times = number // divisor + 1
    return Draft(
        f"What is the smallest multiple of {divisor} that is larger than {number}?",
        str(divisor * times),
        (
            f"{divisor} * {times - 1} = {divisor * (times - 1)} is not larger.",
            f"{divisor} * {times} = {divisor * times}.",
        ),
        f"print(({number} // {divisor} + 1) * {divisor})",
    )


@FAMILY.template(practice=True)
def length_of_power(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the number of digits of a power."""
    base, exponent = rng.randint(2, 9), rng.randint(3, 4 + 3 * difficulty)
    power = base**exponent
    return Draft(
        f"How many digits does the number {base}^{exponent} have?",
        str(len(str(power))),
        (f"{base}^{exponent} = {power}.", f"The number of its digits is {len(str(power))}."),
        f"print(len(str({base} ** {exponent})))",
    )


@FAMILY.template(held_out=True)
def least_common_multiple(rng: random.Random, difficulty: int) -> Draft:
    """Ask for a least common multiple."""
    a, b = rng.randint(4, 8 + 8 * difficulty), rng.randint(4, 8 + 8 * difficulty)
    common = math.gcd(a, b)
    return Draft(
        f"Find the least common multiple of {a} and {b}.",
        str(math.lcm(a, b)),
        (
            f"The greatest common divisor is {common}.",
            f"{a} * {b} = {a * b}.",
            f"{a * b} / {common} = {math.lcm(a, b)}.",
        ),
        f"import math\nprint(math.lcm({a}, {b}))",
    )


@FAMILY.template(held_out=True)
def last_digit_of_power(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the last digit of a power."""
    base, exponent = rng.randint(2, 9), rng.randint(3, 8 * difficulty)
    cycle = [base % 10]
    while (base * cycle[-1]) % 10 != cycle[0]:
        cycle.append(base * cycle[-1] % 10)
    place = (exponent - 1) % len(cycle)
    return Draft(
        f"What is the last digit of {base}^{exponent}?",
        str(cycle[place]),
        (
            f"The last digits of the powers repeat as {', '.join(map(str, cycle))}.",
            f"Exponent {exponent} is at place {place + 1} of {len(cycle)}: the digit "
            f"is {cycle[place]}.",
        ),
        f"print(pow({base}, {exponent}, 10))",
    )
