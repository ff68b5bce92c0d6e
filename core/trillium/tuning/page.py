"""The report of a search: its course, slices of the surrogate, every trial, what to use."""

import math
from collections.abc import Sequence

import torch

from trillium.report import Curves, Headline, ReportData, Section, Series, Settings, Table
from trillium.tuning.search import Trial, best_trial, fit_trials
from trillium.tuning.space import SpaceConfig
from trillium.tuning.surrogate import Surrogate

_N_SLICE = 41


def make_page(space: SpaceConfig, trials: Sequence[Trial]) -> ReportData:
    """Return the report; raises BackendError when every trial failed."""
    best = best_trial(space, trials)
    surrogate = None if space.acquisition == "random" else fit_trials(space, trials)
    n_runs = sum(len(trial.results) for trial in trials)
    sections = [Section("Course", (_course(space, trials),))]
    if surrogate is not None:
        slices = tuple(_slice(space, trials, best, surrogate, place) for place in _places(space))
        sections.append(
            Section(
                "Surrogate",
                slices,
                intro="Through the recommended trial, one parameter at a time; the band is two "
                "standard deviations of the mean. Trials lie elsewhere in the other parameters, so "
                f"they need not lie on it. Noise of one run: {surrogate.noise:.3g}.",
            )
        )
    sections += [
        Section("Trials", (_table(space, trials, best),)),
        Section("Settings", (Settings("Search", space.model_dump(mode="json")),)),
    ]
    return ReportData(
        title=f"Tuning of {', '.join(space.parameters)}",
        subtitle=f"{space.goal} {space.measure} by {space.acquisition.replace('_', ' ')}; "
        f"{len(trials)} trials, {n_runs} runs.",
        headlines=(
            Headline(
                space.measure, f"{best.mean:.4g}", detail=f"trial {best.number}, its own mean"
            ),
            *(Headline(name, f"{value:.4g}") for name, value in best.values.items()),
        ),
        sections=tuple(sections),
        footer="trillium tune",
    )


def _places(space: SpaceConfig) -> range:
    return range(len(space.parameters))


def _course(space: SpaceConfig, trials: Sequence[Trial]) -> Curves:
    better = max if space.goal == "maximise" else min
    numbers = tuple(float(trial.number) for trial in trials)
    means = tuple(math.nan if trial.mean is None else trial.mean for trial in trials)
    best: list[float] = []
    for mean in means:
        known = [value for value in [*best[-1:], mean] if not math.isnan(value)]
        best.append(better(known) if known else math.nan)
    return Curves(
        "Trials and the best so far",
        "trial",
        space.measure,
        (Series("trial", numbers, means, is_points=True), Series("best", numbers, tuple(best))),
        note="Failed trials have no point.",
    )


def _slice(
    space: SpaceConfig, trials: Sequence[Trial], best: Trial, surrogate: Surrogate, place: int
) -> Curves:
    name, parameter = list(space.parameters.items())[place]
    sign = 1.0 if space.goal == "maximise" else -1.0
    grid = torch.linspace(0, 1, _N_SLICE, dtype=torch.float64)
    points = torch.tensor(best.point, dtype=torch.float64).repeat(_N_SLICE, 1)
    points[:, place] = grid
    mean, deviation = surrogate.predict(points)
    is_log = parameter.scale == "log"

    def shown(value: float) -> float:
        return math.log10(value) if is_log else float(value)

    x = tuple(
        shown(parameter.low) + float(t) * (shown(parameter.high) - shown(parameter.low))
        for t in grid
    )
    done = [trial for trial in trials if trial.mean is not None]
    return Curves(
        name,
        f"log10 of {name}" if is_log else name,
        space.measure,
        (
            Series("mean", x, tuple((sign * mean).tolist())),
            Series("upper", x, tuple((sign * mean + 2 * deviation).tolist())),
            Series("lower", x, tuple((sign * mean - 2 * deviation).tolist())),
            Series(
                "trials",
                tuple(shown(trial.values[name]) for trial in done),
                tuple(trial.mean or 0.0 for trial in done),
                is_points=True,
            ),
        ),
    )


def _table(space: SpaceConfig, trials: Sequence[Trial], best: Trial) -> Table:
    return Table(
        "Every trial",
        ("trial", *space.parameters, space.measure, "seeds", "failed", ""),
        tuple(
            (
                trial.number,
                *trial.values.values(),
                trial.mean,
                len(trial.results),
                sum(result is None for result in trial.results.values()),
                "recommended" if trial is best or trial.number == best.number else "",
            )
            for trial in trials
        ),
        note="The recommended trial has the highest mean of the surrogate, which is not always the "
        "best result: among noisy results that is the luckiest.",
    )
