"""Write the number cases of every objective with 400-digit arithmetic.

    python tests/core/objectives/golden/generate.py       20 seconds; rewrites the *.json beside it

The formulas are written from the papers with mpmath and share nothing with the package. A gradient
is a central difference with a step of 1e-100, so it needs no derivative by hand; where a paper
stops a gradient, the formula reads the undisturbed inputs (`frozen`) there.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mpmath import mp, mpf

mp.dps = 400
STEP = mpf(10) ** -100
HERE = Path(__file__).parent

Formula = Callable[[dict, dict, dict], dict]


@dataclass(frozen=True)
class Method:
    """Describe one file: `formula(inputs, frozen, hparams)` returns losses, loss and extras."""

    name: str
    arxiv: str
    formula: Formula
    cases: dict[str, tuple[dict, dict]]
    grads: tuple[str, ...] = ()
    grads_of: str = "sum(losses)"
    note: str = ""
    keys: tuple[str, ...] = field(default=("losses", "loss", "extras"))


def write(method: Method) -> None:
    """Compute every case of a method and write its file."""
    cases = []
    for name, (hparams, inputs) in method.cases.items():
        exact = exactly(inputs)
        outcome = method.formula(exact, exact, hparams)
        expected = {key: outcome[key] for key in method.keys if key in outcome}
        if "loss" not in outcome and "losses" in outcome:
            outcome["loss"] = expected["loss"] = mean(outcome["losses"])
        if method.grads:
            expected["grads"] = {
                key: gradient(method, exact, hparams, key) for key in method.grads if key in inputs
            }
        cases.append(
            {"name": name, "hparams": hparams, "inputs": inputs, "expected": rounded(expected)}
        )
    content = {
        "method": method.name,
        "arxiv": method.arxiv,
        "source": "mpmath, 400 digits, written from the paper",
        "note": method.note,
        "grads_of": method.grads_of,
        "cases": cases,
    }
    text = json.dumps(content, indent=1)
    (HERE / f"{method.name}.json").write_text(text + "\n", encoding="utf-8")


def gradient(method: Method, exact: dict, hparams: dict, key: str) -> object:
    """Return the central difference of the case's scalar by each entry of one input."""

    def scalar(disturbed: object) -> mpf:
        outcome = method.formula({**exact, key: disturbed}, exact, hparams)
        if method.grads_of == "sum(losses)":
            return sum(outcome["losses"])
        return outcome["loss"] if "loss" in outcome else mean(outcome["losses"])

    def at(index: tuple[int, ...]) -> mpf:
        above, below = (scalar(shifted(exact[key], index, step)) for step in (STEP, -STEP))
        return (above - below) / (2 * STEP)

    return filled(exact[key], at)


def exactly(value: object) -> object:
    """Return nested lists and mappings with every float as an mpf; integers and flags stay."""
    if isinstance(value, dict):
        return {key: exactly(each) for key, each in value.items()}
    if isinstance(value, list):
        return [exactly(each) for each in value]
    return mpf(value) if isinstance(value, float) else value


def rounded(value: object) -> object:
    """Return the same structure in float64, for JSON."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return float(value) if isinstance(value, mpf) else value


def shifted(value: object, index: tuple[int, ...], step: mpf) -> object:
    """Return nested lists with one entry moved by a step."""
    if not index:
        return value + step
    return [
        shifted(each, index[1:], step) if position == index[0] else each
        for position, each in enumerate(value)
    ]


def filled(shape: object, at: Callable[[tuple[int, ...]], mpf], index: tuple = ()) -> object:
    """Return nested lists of one shape, each entry computed from its index."""
    if not isinstance(shape, list):
        return at(index)
    return [filled(each, at, (*index, position)) for position, each in enumerate(shape)]


def logits(*shape: int, seed: int) -> list:
    """Return nested lists of numbers between -2 and 2, three digits each."""
    if not shape:
        return round(2 * math.sin(12.9898 * seed), 3)
    return [logits(*shape[1:], seed=7 * seed + position) for position in range(shape[0])]


def mean(values: list) -> mpf:
    """Return the mean."""
    return sum(values) / len(values)


def methods() -> Iterator[Method]:
    """Return every method of the formula files beside this one."""
    import cases_companions
    import cases_lists
    import cases_pairs
    import cases_rounds

    for cases in (cases_pairs, cases_companions, cases_lists, cases_rounds):
        yield from cases.METHODS


if __name__ == "__main__":
    for each in methods():
        write(each)
