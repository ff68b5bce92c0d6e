"""Geometry: lengths, areas, volumes and angles; circles keep their pi."""

import random

from trillium_math.problems.problem import Draft, Family

FAMILY = Family("geometry")

_TRIPLES = ((3, 4, 5), (5, 12, 13), (8, 15, 17), (7, 24, 25), (20, 21, 29))


@FAMILY.template()
def rectangle_perimeter(rng: random.Random, difficulty: int) -> Draft:
    """Ask for a perimeter from area and one side."""
    a, b = rng.randint(2, 12 * difficulty), rng.randint(2, 12 * difficulty)
    return Draft(
        f"A rectangle has the area {a * b} and one side of length {a}. What is its perimeter?",
        str(2 * (a + b)),
        (
            f"The other side is {a * b} / {a} = {b}.",
            f"{a} + {b} = {a + b}.",
            f"The perimeter is 2 * {a + b} = {2 * (a + b)}.",
        ),
        f"other = {a * b} // {a}\nprint(2 * ({a} + other))",
    )


@FAMILY.template()
def hypotenuse(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the longest side of a right triangle."""
    x, y, z = rng.choice(_TRIPLES[: difficulty + 1])
    k = rng.randint(1, 4 * difficulty)
    a, b, c = k * x, k * y, k * z
    return Draft(
        f"The legs of a right triangle are {a} and {b}. How long is its hypotenuse?",
        str(c),
        (
            f"{a}^2 + {b}^2 = {a * a + b * b}.",
            f"The square root of {a * a + b * b} is {c}.",
        ),
        f"import math\nprint(math.isqrt({a} ** 2 + {b} ** 2))",
    )


@FAMILY.template()
def box_volume(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the volume that is left in a box."""
    a, b, c = (rng.randint(2, 4 + 4 * difficulty) for _ in range(3))
    used = rng.randint(1, a * b * c - 1)
    return Draft(
        f"A box is {a} cm long, {b} cm wide and {c} cm high. {used} cubic cm of it are filled. How "
        "many cubic cm are empty?",
        str(a * b * c - used),
        (
            f"{a} * {b} = {a * b}.",
            f"{a * b} * {c} = {a * b * c}.",
            f"{a * b * c} - {used} = {a * b * c - used}.",
        ),
        f"print({a} * {b} * {c} - {used})",
    )


@FAMILY.template()
def triangle_angle(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the third angle of a triangle."""
    a = rng.randint(10, 60 + 10 * difficulty)
    b = rng.randint(10, 165 - a)
    return Draft(
        f"Two angles of a triangle are {a} and {b} degrees. How many degrees has the third?",
        str(180 - a - b),
        (f"{a} + {b} = {a + b}.", f"180 - {a + b} = {180 - a - b}."),
        f"print(180 - {a} - {b})",
    )


@FAMILY.template()
def circle_area(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the area of a circle in terms of pi."""
    r = rng.randint(2, 8 * difficulty)
    return Draft(
        f"A circle has the diameter {2 * r}. What is its area in terms of pi?",
        f"{r * r}\\pi",
        (f"The radius is {2 * r} / 2 = {r}.", f"{r} * {r} = {r * r}, so the area is {r * r}\\pi."),
        f'r = {2 * r} // 2\nprint(f"{{r * r}}*pi")',
    )


@FAMILY.template()
def triangle_area(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the area of a triangle."""
    base, height = rng.randint(2, 10 * difficulty), 2 * rng.randint(1, 6 * difficulty)
    return Draft(
        f"A triangle has a base of {base} cm and a height of {height} cm. What is its area in "
        "square cm?",
        str(base * height // 2),
        (
            f"{base} * {height} = {base * height}.",
            f"{base * height} / 2 = {base * height // 2}.",
        ),
        f"print({base} * {height} // 2)",
    )


@FAMILY.template()
def frame_area(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the area of a frame around a picture."""
    a, b = (rng.randint(3, 8 + 6 * difficulty) for _ in range(2))
    width = rng.randint(1, 1 + difficulty)
    outer, long, wide = (a + 2 * width) * (b + 2 * width), a + 2 * width, b + 2 * width
    return Draft(
        f"A picture of {a} by {b} cm has a frame that is {width} cm wide on every side. What is "
        "the area of the frame in square cm?",
        str(outer - a * b),
        (
            f"With the frame it measures {a} + 2 * {width} = {long} by {b} + 2 * {width} = {wide}.",
            f"{long} * {wide} = {outer} and {a} * {b} = {a * b}.",
            f"{outer} - {a * b} = {outer - a * b}.",
        ),
        f"outer = ({a} + 2 * {width}) * ({b} + 2 * {width})\nprint(outer - {a} * {b})",
    )


@FAMILY.template(practice=True)
def cube_surface(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the surface of a cube."""
    a = rng.randint(2, 6 + 8 * difficulty)
    return Draft(
        f"A cube has edges of length {a}. What is the area of its whole surface?",
        str(6 * a * a),
        (f"One face has the area {a} * {a} = {a * a}.", f"6 * {a * a} = {6 * a * a}."),
        f"print(6 * {a} ** 2)",
    )


@FAMILY.template(practice=True)
def pond_in_garden(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the area around a square pond."""
    a, b = (rng.randint(4, 8 + 8 * difficulty) for _ in range(2))
    side = rng.randint(2, min(a, b) - 1)
    return Draft(
        f"A garden is {a} m long and {b} m wide. A square pond in it has sides of {side} m. How "
        "many square m are not covered by the pond?",
        str(a * b - side * side),
        (
            f"The garden has {a} * {b} = {a * b} square m.",
            f"The pond has {side} * {side} = {side * side} square m.",
            f"{a * b} - {side * side} = {a * b - side * side}.",
        ),
        f"print({a} * {b} - {side} ** 2)",
    )


@FAMILY.template(held_out=True)
def trapezoid_area(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the area of a trapezoid."""
    a, height = rng.randint(2, 9 * difficulty), 2 * rng.randint(1, 5 * difficulty)
    b = rng.randint(2, 9 * difficulty)
    return Draft(
        f"A trapezoid has parallel sides {a} and {b} and the height {height}. What is its area?",
        str((a + b) * height // 2),
        (
            f"{a} + {b} = {a + b}.",
            f"{a + b} * {height} = {(a + b) * height}.",
            f"{(a + b) * height} / 2 = {(a + b) * height // 2}.",
        ),
        f"print(({a} + {b}) * {height} // 2)",
    )


@FAMILY.template(held_out=True)
def cut_square(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the area left when squares are cut from the corners of a square."""
    small = rng.randint(1, 3 * difficulty)
    side = 2 * small + rng.randint(1, 8 * difficulty)
    left = side * side - 4 * small * small
    return Draft(
        f"From each corner of a square with side {side} a square with side {small} is cut off. "
        "What area is left?",
        str(left),
        (
            f"The whole area is {side} * {side} = {side * side}.",
            f"Each corner takes {small} * {small} = {small * small}, all four "
            f"4 * {small * small} = {4 * small * small}.",
            f"{side * side} - {4 * small * small} = {left}.",
        ),
        f"print({side} ** 2 - 4 * {small} ** 2)",
    )
