"""Routing pairs to people against random routing, where the truth is known.

    python tests/benchmarks/routing.py [--repeats 10] [--pairs 600] [--json FILE]

About half a minute on an idle core. A toy: three simulated judges see the true difference of two
responses with noise of their own, with a liking for the first place, and all of them like padding;
their majority labels the pairs. People, who are always right, take a share of the pairs. The table
is the share of right labels afterwards: by judges' doubt, by errors on a pilot of 120 pairs with
both labels (which are not routed again and count for every method), by 60 measured mixtures, and at
random. No ratio is required: the table is what it is.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from trillium.records import PairRow
from trillium.strategies.gains import choose, doubt, label_accuracy, random_accuracies
from trillium.strategies.judging import Opinion, combine_orders
from trillium.strategies.route import gains_by_mixtures, gains_by_pilot

WORDS = ("river", "stone", "lamp", "quiet", "garden", "morning", "letter", "window", "paper")
SHARES = (0.1, 0.2, 0.4)
N_PILOT, N_MIXTURES, N_JUDGES = 120, 60, 3


@dataclass(frozen=True)
class Case:
    """Hold pairs as the judges' majority labels them, which are wrong, and the opinions."""

    rows: list[PairRow]
    is_wrong: np.ndarray
    opinions: list[list[tuple[Opinion, Opinion]]]


def make_case(seed: int, n: int, *, noise: float = 0.8, liking: float = 1.5) -> Case:
    """Simulate judges that agree on a mistake, padding, and err alone besides."""
    draw = np.random.default_rng(seed)
    rows, wrong, every = [], [], []
    for number in range(n):
        better, is_padded = draw.normal(), draw.random() < 0.3
        one, other = (_write(draw, 20 + 40 * (is_padded and side == 0)) for side in (0, 1))
        opinions = []
        for _ in range(N_JUDGES):
            seen = better + liking * is_padded + noise * draw.normal()
            opinions.append((_opine(seen + 0.3), _opine(0.3 - seen)))
        votes = [
            combine_orders(forward, backward).preference or 0.0 for forward, backward in opinions
        ]
        says_one = sum(np.sign(vote) for vote in votes) > 0
        chosen, rejected = (one, other) if says_one else (other, one)
        rows.append(PairRow(id=str(number), prompt="Say it.", chosen=chosen, rejected=rejected))
        wrong.append(says_one != (better > 0))
        every.append(opinions)
    return Case(rows, np.array(wrong), every)


def find_gains(case: Case, pilot: Sequence[int], seed: int) -> dict[str, Sequence[float]]:
    """Return the gains by every method; people have labelled the pilot."""
    chance = random.Random(seed)
    sides = {str(place): "rejected" if case.is_wrong[place] else "chosen" for place in pilot}
    mixtures = []
    for _ in range(N_MIXTURES):
        share = chance.uniform(0.05, 0.95)
        is_human = np.array([chance.random() < share for _ in case.rows])
        ids = frozenset(row.id for row, human in zip(case.rows, is_human, strict=True) if human)
        mixtures.append((ids, label_accuracy(case.is_wrong, is_human) + chance.gauss(0, 0.01)))
    return {
        "doubt": [doubt(each) for each in case.opinions],
        "errors": gains_by_pilot(case.rows, sides),
        "mixtures": gains_by_mixtures(case.rows, mixtures),
    }


def compare(seed: int, n: int) -> dict[str, dict[str, float]]:
    """Return the share of right labels by method and share of pairs that people label."""
    case = make_case(seed, n)
    pilot = random.Random(seed).sample(range(n), N_PILOT)
    gains = find_gains(case, pilot, seed)
    rest = np.array([place not in pilot for place in range(n)])
    is_wrong = case.is_wrong[rest]
    found: dict[str, dict[str, float]] = {}
    for share in SHARES:
        budget = round(share * len(is_wrong))
        for method, values in gains.items():
            is_human = choose(np.asarray(values)[rest].tolist(), budget, seed=seed)
            found.setdefault(method, {})[str(share)] = label_accuracy(is_wrong, is_human)
        draws = random_accuracies(is_wrong, budget, n_draws=200, seed=seed)
        found.setdefault("random", {})[str(share)] = float(draws.mean())
        found.setdefault("best possible", {})[str(share)] = min(
            1.0, 1 - float(is_wrong.mean()) + share
        )
    return found


def _write(draw: np.random.Generator, n_words: int) -> str:
    return " ".join(draw.choice(WORDS, size=n_words + int(draw.integers(0, 6))))


def _opine(difference: float) -> Opinion:
    score = float(np.clip(round(5 + 1.5 * difference), 0, 10))
    return Opinion((score, 10 - score), "")


def main() -> None:
    """Run all repeats and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    every = [compare(seed, arguments.pairs) for seed in range(arguments.repeats)]
    print(f"right labels, mean (lowest, highest) of {arguments.repeats} cases")
    print(f"{'to people':14}" + "".join(f"{share:>24.0%}" for share in SHARES))
    for method in every[0]:
        cells = []
        for share in SHARES:
            values = [one[method][str(share)] for one in every]
            cells.append(f"{np.mean(values):.3f} ({min(values):.3f}, {max(values):.3f})")
        print(f"{method:14}" + "".join(f"{cell:>24}" for cell in cells), flush=True)
    if arguments.json is not None:
        facts = {"repeats": arguments.repeats, "pairs": arguments.pairs, "right": every}
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
