"""Rates: speed, work, flow and price per unit."""

import random
from fractions import Fraction

from trillium_math.problems.problem import Draft, Family

FAMILY = Family("rates")


@FAMILY.template()
def distance_in_two_parts(rng: random.Random, difficulty: int) -> Draft:
    """Ask for a distance travelled at two speeds."""
    vehicle = rng.choice(("train", "car", "ship", "cyclist", "bus"))
    v, w = rng.randint(10, 20 * difficulty + 10), rng.randint(10, 20 * difficulty + 10)
    t, u = rng.randint(2, 3 + difficulty), rng.randint(2, 3 + difficulty)
    return Draft(
        f"A {vehicle} travels {t} hours at {v} km per hour and then {u} hours at {w} km per hour. "
        "How many km does it travel?",
        str(v * t + w * u),
        (
            f"First part: {t} * {v} = {t * v} km.",
            f"Second part: {u} * {w} = {u * w} km.",
            f"Together: {t * v} + {u * w} = {t * v + u * w} km.",
        ),
        f"print({t} * {v} + {u} * {w})",
    )


@FAMILY.template()
def fill_and_leak(rng: random.Random, difficulty: int) -> Draft:
    """Ask how long a tank with a leak takes to fill."""
    leak = rng.randint(1, 3 * difficulty)
    inflow, minutes = leak + rng.randint(2, 5 * difficulty), rng.randint(3, 12 * difficulty)
    volume = (inflow - leak) * minutes
    return Draft(
        f"A tap pours {inflow} litres per minute into a tank, and {leak} litres per minute leak "
        f"out. How many minutes does it take until the tank holds {volume} litres?",
        str(minutes),
        (
            f"Each minute adds {inflow} - {leak} = {inflow - leak} litres.",
            f"{volume} / {inflow - leak} = {minutes} minutes.",
        ),
        f"print({volume} // ({inflow} - {leak}))",
    )


@FAMILY.template()
def price_per_unit(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the price of another amount."""
    unit, n = rng.randint(2, 4 * difficulty + 2), rng.randint(2, 9)
    m = rng.randint(2, 10 * difficulty + 2)
    food = rng.choice(("rice", "flour", "apples", "nuts", "cheese"))
    return Draft(
        f"{n} kg of {food} cost {n * unit} dollars. How many dollars do {m} kg cost?",
        str(m * unit),
        (f"One kg costs {n * unit} / {n} = {unit} dollars.", f"{m} * {unit} = {m * unit}."),
        f"unit = {n * unit} // {n}\nprint({m} * unit)",
    )


@FAMILY.template()
def machines(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the output of several machines."""
    per_hour, n = rng.randint(3, 10 * difficulty), rng.randint(4, 6 + difficulty)
    hours, broken = rng.randint(2, 10), rng.randint(2, n - 2)
    left = n - broken
    return Draft(
        f"A machine makes {per_hour} parts per hour. A factory has {n} such machines, and {broken} "
        f"of them are broken. How many parts does it make in {hours} hours?",
        str(left * per_hour * hours),
        (
            f"{n} - {broken} = {left} machines run.",
            f"They make {left} * {per_hour} = {left * per_hour} parts per hour.",
            f"In {hours} hours: {left * per_hour} * {hours} = {left * per_hour * hours} parts.",
        ),
        f"running = {n} - {broken}\nprint(running * {per_hour} * {hours})",
    )


@FAMILY.template()
def catching_up(rng: random.Random, difficulty: int) -> Draft:
    """Ask how long a faster vehicle needs to catch up."""
    slow, gain = rng.randint(5, 15 * difficulty), rng.randint(3, 12 * difficulty)
    hours, fast = rng.randint(2, 4 + difficulty), slow + gain
    ahead = gain * hours
    return Draft(
        f"A ship is {ahead} km ahead and sails at {slow} km per hour. Another follows it at {fast} "
        "km per hour. After how many hours does it catch up?",
        str(hours),
        (
            f"Each hour it gains {fast} - {slow} = {gain} km.",
            f"{ahead} / {gain} = {hours} hours.",
        ),
        f"print({ahead} // ({fast} - {slow}))",
    )


@FAMILY.template()
def average_speed(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the average speed over two parts."""
    t, u = rng.randint(1, 2 + difficulty), rng.randint(1, 2 + difficulty)
    speed = rng.randint(10, 20 + 15 * difficulty)
    total = speed * (t + u)
    first = rng.randint(5, total - 5)
    return Draft(
        f"A bus drives {first} km in {t} hours and then {total - first} km in {u} hours. What is "
        "its average speed in km per hour?",
        str(speed),
        (
            f"It drives {first} + {total - first} = {total} km.",
            f"That takes {t} + {u} = {t + u} hours.",
            f"{total} / {t + u} = {speed} km per hour.",
        ),
        f"print(({first} + {total - first}) // ({t} + {u}))",
    )


@FAMILY.template(practice=True)
def two_taps(rng: random.Random, difficulty: int) -> Draft:
    """Ask how long two taps need for a tank."""
    a, b = (rng.randint(2, 8 + 5 * difficulty) for _ in range(2))
    minutes = rng.randint(3, 5 + 5 * difficulty)
    volume = (a + b) * minutes
    return Draft(
        f"One tap pours {a} litres per minute and another {b} litres per minute into a pool of "
        f"{volume} litres. How many minutes do both together need to fill it?",
        str(minutes),
        (
            f"Together they pour {a} + {b} = {a + b} litres per minute.",
            f"{volume} / {a + b} = {minutes} minutes.",
        ),
        f"print({volume} // ({a} + {b}))",
    )


@FAMILY.template(practice=True)
def pages_printed(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the output in another time."""
    rate, t = rng.randint(2, 8 + 6 * difficulty), rng.randint(2, 4 + difficulty)
    u = rng.randint(3, 8 + 5 * difficulty)
    machine = rng.choice(("printer", "copier", "press"))
    return Draft(
        f"A {machine} makes {rate * t} pages in {t} minutes. How many pages does it make in {u} "
        "minutes?",
        str(rate * u),
        (
            f"In one minute it makes {rate * t} / {t} = {rate} pages.",
            f"{rate} * {u} = {rate * u}.",
        ),
        f"rate = {rate * t} // {t}\nprint(rate * {u})",
    )


@FAMILY.template(held_out=True)
def meeting_trains(rng: random.Random, difficulty: int) -> Draft:
    """Ask when two trains meet."""
    v, w = rng.randint(20, 30 * difficulty + 20), rng.randint(20, 30 * difficulty + 20)
    hours = rng.randint(2, 3 + 2 * difficulty)
    apart = (v + w) * hours
    return Draft(
        f"Two towns are {apart} km apart. Trains leave both at the same time towards each other, "
        f"at {v} and {w} km per hour. After how many hours do they meet?",
        str(hours),
        (
            f"Together they cover {v} + {w} = {v + w} km per hour.",
            f"{apart} / {v + w} = {hours} hours.",
        ),
        f"print({apart} // ({v} + {w}))",
    )


@FAMILY.template(held_out=True)
def work_together(rng: random.Random, difficulty: int) -> Draft:
    """Ask how long two workers need together."""
    a, b = rng.randint(2, 4 + 3 * difficulty), rng.randint(2, 4 + 3 * difficulty)
    time = Fraction(a * b, a + b)
    return Draft(
        f"One painter needs {a} hours for a wall, another needs {b} hours. How many hours do they "
        "need together? Give a reduced fraction if it is not whole.",
        str(time),
        (
            f"The product is {a} * {b} = {a * b}.",
            f"The sum is {a} + {b} = {a + b}.",
            f"Together they need {a * b}/{a + b} = {time} hours.",
        ),
        f"from fractions import Fraction\nprint(Fraction({a} * {b}, {a} + {b}))",
    )
