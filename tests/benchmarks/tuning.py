"""Regret of the tuner against random search on three noisy test functions.

    python tests/benchmarks/tuning.py [--repeats 5] [--trials 20] [--methods NAME...] [--json FILE]
        [--work FOLDER]

About ten minutes on an idle core. Branin (2 parameters), Hartmann (3) and Ackley (2), each with
Gaussian noise, the same noise for every method. Regret is how far the noise-free value at the
recommended trial, chosen from noisy results alone, lies above the minimum; the second table is of
the place where the surrogate's mean is highest, tried or not. Searches are kept in the work folder,
so that a killed benchmark continues, and FILE keeps the methods that it has. No ratio is required:
the tables are what they are.
"""

import argparse
import hashlib
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from trillium.tuning.search import best_trial, fit_trials, search
from trillium.tuning.space import Acquisition, SpaceConfig
from trillium.tuning.surrogate import check_installed, spread_points

METHODS: tuple[Acquisition, ...] = (
    "random",
    "expected_improvement",
    "entropy_search",
    "knowledge_gradient",
)


def branin(x: np.ndarray) -> float:
    """Return Branin's function on the unit square; its minimum is 0.397887."""
    a, b = 15 * x[0] - 5, 15 * x[1]
    curve = b - 5.1 / (4 * np.pi**2) * a**2 + 5 / np.pi * a - 6
    return float(curve**2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(a) + 10)


def hartmann(x: np.ndarray) -> float:
    """Return Hartmann's function of three parameters; its minimum is -3.86278."""
    a = np.array([[3, 10, 30], [0.1, 10, 35], [3, 10, 30], [0.1, 10, 35]])
    p = 1e-4 * np.array(
        [[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]]
    )
    return -float(np.array([1, 1.2, 3, 3.2]) @ np.exp(-(a * (x - p) ** 2).sum(1)))


def ackley(x: np.ndarray) -> float:
    """Return Ackley's function on [-5, 5]^2, its minimum, 0, moved off the centre."""
    z = 10 * (x - np.array([0.37, 0.61]))
    hills = -np.exp(np.cos(2 * np.pi * z).mean())
    return float(-20 * np.exp(-0.2 * np.sqrt((z**2).mean())) + hills + 20 + np.e)


Regrets = dict[str, dict[str, list[float]]]
"""Regrets by method and function, one per repeat."""

N_LOOKED_AT = 4096

# Function, parameters, minimum, standard deviation of the noise: a few hundredths of the range.
FUNCTIONS = {
    "branin": (branin, 2, 0.397887, 5.0),
    "hartmann": (hartmann, 3, -3.86278, 0.1),
    "ackley": (ackley, 2, 0.0, 0.5),
}


def run(
    name: str, method: Acquisition, repeat: int, n_trials: int, folder: Path
) -> dict[str, float]:
    """Search once; return the regret of the recommended trial and of the surrogate's optimum."""
    function, n, minimum, noise = FUNCTIONS[name]
    space = SpaceConfig.model_validate(
        {
            "parameters": {f"x{place}": {"low": 0, "high": 1} for place in range(n)},
            "goal": "minimise",
            "measure": name,
            "n_trials": n_trials,
            "acquisition": method,
            "seed": repeat,
        }
    )

    def evaluate(trial: int, values: Mapping[str, float | int], seed: int) -> float:
        digest = hashlib.sha256(f"{name}/{repeat}/{trial}".encode()).digest()
        draw = np.random.default_rng(int.from_bytes(digest[:8])).normal()
        return function(np.array(list(values.values()))) + noise * float(draw)

    trials = search(space, evaluate, folder / f"{name}-{method}-{repeat}")
    best = best_trial(space, trials)
    found = {"regret": function(np.array(list(best.values.values()))) - minimum}
    surrogate = fit_trials(space, trials) if method != "random" else None
    if surrogate is not None:
        tried = torch.tensor([trial.point for trial in trials], dtype=torch.float64)
        points = torch.cat([tried, spread_points(N_LOOKED_AT, n, seed=repeat)])
        means, _ = surrogate.predict(points)
        found["regret_of_optimum"] = function(points[int(means.argmax())].numpy()) - minimum
    return found


def read_known(path: Path | None, repeats: int, trials: int) -> dict[str, Regrets]:
    """Return the regrets that a file has of as many repeats and trials, so that methods add up."""
    if path is None or not path.is_file():
        return {"regret": {}, "regret_of_optimum": {}}
    facts = json.loads(path.read_text())
    if (facts["repeats"], facts["trials"]) != (repeats, trials):
        raise SystemExit(f"{path}: holds {facts['repeats']} repeats of {facts['trials']} trials")
    return {key: facts.get(key, {}) for key in ("regret", "regret_of_optimum")}


def show(title: str, found: Regrets, methods: Sequence[str]) -> None:
    """Print a table of medians and worst regrets."""
    print(f"\n{title}: median (worst)")
    print(f"{'':22}" + "".join(f"{name:>22}" for name in FUNCTIONS))
    for method in methods:
        regrets = found.get(method, {})
        cells = [
            f"{statistics.median(regrets[name]):.3f} ({max(regrets[name]):.3f})"
            for name in FUNCTIONS
            if name in regrets
        ]
        print(f"{method:22}" + "".join(f"{cell:>22}" for cell in cells))


def main() -> None:
    """Run every method on every function and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    check_installed()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="tuning-"))
    found = read_known(arguments.json, arguments.repeats, arguments.trials)
    for method in arguments.methods:
        for name in FUNCTIONS:
            searches = [
                run(name, method, repeat, arguments.trials, work)
                for repeat in range(arguments.repeats)
            ]
            for key in searches[0]:
                found[key].setdefault(method, {})[name] = [one[key] for one in searches]
            print(f"{method} on {name}: {searches}", flush=True)
            if arguments.json is not None:
                facts = {"repeats": arguments.repeats, "trials": arguments.trials, **found}
                arguments.json.write_text(json.dumps(facts, indent=2) + "\n")
    methods = [method for method in METHODS if method in found["regret"]]
    show("regret of the recommended trial", found["regret"], methods)
    modelled = [method for method in methods if method in found["regret_of_optimum"]]
    show("regret where the surrogate's mean is highest", found["regret_of_optimum"], modelled)


if __name__ == "__main__":
    main()
