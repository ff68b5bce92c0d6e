"""Word problems with several steps, about shops, farms, savings and ages."""

import random

from trillium_math.problems.problem import Draft, Family

FAMILY = Family("word_problems")

NAMES = ("Ada", "Ben", "Chen", "Dora", "Emil", "Fatima", "Goran", "Hana", "Ivo", "Jun", "Kofi")
GOODS = ("pencils", "notebooks", "apples", "stickers", "marbles", "postcards", "candles", "mugs")


@FAMILY.template()
def change_at_shop(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the change after buying two kinds of goods."""
    name, (first, second) = rng.choice(NAMES), rng.sample(GOODS, 2)
    n, m = rng.randint(2, 3 * difficulty + 2), rng.randint(2, 3 * difficulty + 2)
    p, q = rng.randint(2, 4 * difficulty), rng.randint(2, 4 * difficulty)
    cost = n * p + m * q
    paid = (cost // 10 + rng.randint(1, 3)) * 10
    return Draft(
        f"{name} buys {n} {first} at {p} dollars each and {m} {second} at {q} dollars each, and "
        f"pays with {paid} dollars. How many dollars of change does {name} get?",
        str(paid - cost),
        (
            f"The {first} cost {n} * {p} = {n * p} dollars.",
            f"The {second} cost {m} * {q} = {m * q} dollars.",
            f"Together they cost {n * p} + {m * q} = {cost} dollars.",
            f"The change is {paid} - {cost} = {paid - cost} dollars.",
        ),
        f"cost = {n} * {p} + {m} * {q}\nprint({paid} - cost)",
    )


@FAMILY.template()
def give_and_share(rng: random.Random, difficulty: int) -> Draft:
    """Ask for an equal share after some were given away."""
    name, goods = rng.choice(NAMES), rng.choice(GOODS)
    friends, share = rng.randint(2, 3 + difficulty), rng.randint(2, 6 * difficulty)
    boxes = rng.randint(2, 3 + difficulty)
    size = -(-friends * share // boxes) + rng.randint(1, 3 * difficulty)
    given = boxes * size - friends * share
    return Draft(
        f"{name} has {boxes} boxes with {size} {goods} in each. {name} gives {given} {goods} to a "
        f"school and shares the rest equally among {friends} friends. How many {goods} does each "
        "friend get?",
        str(share),
        (
            f"There are {boxes} * {size} = {boxes * size} {goods}.",
            f"After the gift {boxes * size} - {given} = {friends * share} are left.",
            f"Each friend gets {friends * share} / {friends} = {share}.",
        ),
        f"left = {boxes} * {size} - {given}\nprint(left // {friends})",
    )


@FAMILY.template()
def weekly_savings(rng: random.Random, difficulty: int) -> Draft:
    """Ask for savings after weeks of earning and spending."""
    name = rng.choice(NAMES)
    start, weeks = rng.randint(5, 40 * difficulty), rng.randint(2, 4 + 2 * difficulty)
    spent = rng.randint(1, 5 * difficulty)
    earned = spent + rng.randint(2, 6 * difficulty)
    gain = earned - spent
    return Draft(
        f"{name} has {start} dollars. Every week {name} earns {earned} dollars and spends {spent} "
        f"dollars. How many dollars does {name} have after {weeks} weeks?",
        str(start + weeks * gain),
        (
            f"Each week adds {earned} - {spent} = {gain} dollars.",
            f"In {weeks} weeks that is {weeks} * {gain} = {weeks * gain} dollars.",
            f"Together with the start: {start} + {weeks * gain} = {start + weeks * gain} dollars.",
        ),
        f"gain = {earned} - {spent}\nprint({start} + {weeks} * gain)",
    )


@FAMILY.template()
def twice_as_many(rng: random.Random, difficulty: int) -> Draft:
    """Ask for a total where one has a multiple of the other."""
    (one, other), goods = rng.sample(NAMES, 2), rng.choice(GOODS)
    n, factor = rng.randint(3, 15 * difficulty), rng.randint(2, 2 + difficulty)
    lost = rng.randint(1, n)
    total = n + factor * n
    return Draft(
        f"{one} collected {n} {goods}. {other} collected {factor} times as many. Together they "
        f"then lost {lost}. How many {goods} do they have now?",
        str(total - lost),
        (
            f"{other} collected {factor} * {n} = {factor * n} {goods}.",
            f"Together they had {n} + {factor * n} = {total}.",
            f"Now they have {total} - {lost} = {total - lost}.",
        ),
        f"other = {factor} * {n}\nprint({n} + other - {lost})",
    )


@FAMILY.template()
def empty_seats(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the seats that stay empty in several buses."""
    buses, seats = rng.randint(2, 3 + difficulty), rng.randint(12, 20 + 8 * difficulty)
    teachers = rng.randint(2, 6)
    pupils = rng.randint(buses * seats // 2, buses * seats - teachers)
    riders = pupils + teachers
    return Draft(
        f"A school rents {buses} buses with {seats} seats each. {pupils} pupils and {teachers} "
        "teachers go on the trip. How many seats stay empty?",
        str(buses * seats - riders),
        (
            f"There are {buses} * {seats} = {buses * seats} seats.",
            f"{pupils} + {teachers} = {riders} people take one.",
            f"{buses * seats} - {riders} = {buses * seats - riders} stay empty.",
        ),
        f"seats = {buses} * {seats}\nprint(seats - {pupils} - {teachers})",
    )


@FAMILY.template()
def ages_together(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the sum of two ages some years from now."""
    one, other = rng.sample(NAMES, 2)
    young, factor = rng.randint(2, 5 + 2 * difficulty), rng.randint(2, 4)
    years = rng.randint(1, 4 + 2 * difficulty)
    old = factor * young
    return Draft(
        f"{one} is {young} years old, and {other} is {factor} times as old. How old will both be "
        f"together in {years} years?",
        str(young + old + 2 * years),
        (
            f"{other} is {factor} * {young} = {old} years old.",
            f"Together they are {young} + {old} = {young + old} now.",
            f"Both grow older by {years}: {young + old} + 2 * {years} = {young + old + 2 * years}.",
        ),
        f"other = {factor} * {young}\nprint({young} + other + 2 * {years})",
    )


@FAMILY.template(practice=True)
def zoo_day(rng: random.Random, difficulty: int) -> Draft:
    """Ask for what is left of the income from two kinds of tickets."""
    n, m = rng.randint(3, 6 * difficulty + 4), rng.randint(3, 6 * difficulty + 4)
    p, q = rng.randint(4, 5 + 3 * difficulty), rng.randint(2, 3 + 2 * difficulty)
    income = n * p + m * q
    food = rng.randint(2, income - 1)
    return Draft(
        f"A zoo sells {n} tickets at {p} dollars and {m} tickets at {q} dollars. It then spends "
        f"{food} dollars on food. How many dollars are left?",
        str(income - food),
        (
            f"{n} * {p} = {n * p} and {m} * {q} = {m * q}.",
            f"The income is {n * p} + {m * q} = {income} dollars.",
            f"{income} - {food} = {income - food} dollars are left.",
        ),
        f"income = {n} * {p} + {m} * {q}\nprint(income - {food})",
    )


@FAMILY.template(practice=True)
def pages_left(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the days that a reader still needs."""
    name, days = rng.choice(NAMES), rng.randint(2, 3 + 2 * difficulty)
    slow, fast = rng.randint(3, 8 * difficulty), rng.randint(4, 10 * difficulty)
    more = rng.randint(2, 4 + 2 * difficulty)
    total = slow * days + fast * more
    return Draft(
        f"{name} reads {slow} pages a day for {days} days, and from then on {fast} pages a day. "
        f"The book has {total} pages. How many more days does {name} need?",
        str(more),
        (
            f"In {days} days {name} reads {days} * {slow} = {slow * days} pages.",
            f"{total} - {slow * days} = {total - slow * days} pages are left.",
            f"{total - slow * days} / {fast} = {more} days.",
        ),
        f"left = {total} - {slow} * {days}\nprint(left // {fast})",
    )


@FAMILY.template(held_out=True)
def theatre_tickets(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the income of a theatre that sold full and reduced tickets."""
    rows, seats = rng.randint(3, 5 + 3 * difficulty), rng.randint(4, 6 + 3 * difficulty)
    full_price = rng.randint(6, 8 + 4 * difficulty)
    reduced_price = full_price - rng.randint(2, 5)
    children = rng.randint(2, rows * seats - 2)
    adults = rows * seats - children
    income = adults * full_price + children * reduced_price
    return Draft(
        f"A theatre has {rows} rows of {seats} seats, and all are taken. {children} visitors are "
        f"children and pay {reduced_price} dollars each; the others pay {full_price} dollars each. "
        "How many dollars does the theatre take in?",
        str(income),
        (
            f"There are {rows} * {seats} = {rows * seats} visitors.",
            f"Of these {rows * seats} - {children} = {adults} are adults.",
            f"Adults pay {adults} * {full_price} = {adults * full_price} dollars.",
            f"Children pay {children} * {reduced_price} = {children * reduced_price} dollars.",
            f"Together: {adults * full_price} + {children * reduced_price} = {income} dollars.",
        ),
        f"adults = {rows} * {seats} - {children}\n"
        f"print(adults * {full_price} + {children} * {reduced_price})",
    )


@FAMILY.template(held_out=True)
def ages_in_years(rng: random.Random, difficulty: int) -> Draft:
    """Ask for an age some years from now."""
    one, other = rng.sample(NAMES, 2)
    young, factor = rng.randint(3, 4 + 2 * difficulty), rng.randint(2, 4)
    more, years = rng.randint(2, 5), rng.randint(2, 5 + 3 * difficulty)
    old = factor * young + more
    return Draft(
        f"{one} is {young} years old. {other} is {more} years older than {factor} times the age of "
        f"{one}. How old will {other} be in {years} years?",
        str(old + years),
        (
            f"{factor} times the age of {one} is {factor} * {young} = {factor * young}.",
            f"{other} is {factor * young} + {more} = {old} years old.",
            f"In {years} years that is {old} + {years} = {old + years}.",
        ),
        f"age = {factor} * {young} + {more}\nprint(age + {years})",
    )
