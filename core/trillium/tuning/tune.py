"""`tune`: search settings of a run file in a folder that survives a kill."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trillium.files import hash_json, write_atomically
from trillium.report import render_report
from trillium.runs import Run, hash_config
from trillium.training.runfile import input_hashes
from trillium.tuning.page import make_page
from trillium.tuning.search import Trial, best_trial, is_exhausted, search
from trillium.tuning.space import SpaceConfig
from trillium.tuning.surrogate import check_installed
from trillium.tuning.trial import check_run, make_evaluate
from trillium.yamlfile import dump_yaml


@dataclass(frozen=True)
class Tuned:
    """Hold the trials, the recommended one, and the report."""

    trials: tuple[Trial, ...]
    best: Trial
    report: Path


def tune(
    path: Path, space: SpaceConfig, overrides: Sequence[str], say: Callable[[str], None]
) -> Tuned:
    """Search, or continue, and write report.html and best.yaml, the overrides of the best trial.

    Raises ConfigError for a run file or a space that do not fit one another, before anything runs;
    BackendError when every trial failed.
    """
    if space.acquisition != "random":
        check_installed()
    inputs = input_hashes(*check_run(path, overrides, space), n_processes=1)
    # More trials, or another patience, continue the same search.
    free = {"output": Path(), "n_trials": 1, "patience": None}
    with Run.open(space.output, space, seed=space.seed) as run:
        inputs["space"] = hash_config(space.model_copy(update=free))
        folder = run.folder / "search" / hash_json(inputs)[:12]
        folder.mkdir(parents=True, exist_ok=True)
        stage = run.stage(
            "search", {**inputs, "trials": str(space.n_trials), "patience": str(space.patience)}
        )
        evaluate = make_evaluate(path, overrides, space, folder, say)
        trials = search(space, evaluate, folder)
        if len(trials) < space.n_trials and is_exhausted(space, trials):
            n = len(trials)
            say(f"every setting of the space was tried in {n} trials; widen the bounds to go on")
        if stage.is_due:
            stage.finish([], {"trials": len(trials)})
    best = best_trial(space, trials)
    report = space.output / "report.html"
    write_atomically(report, render_report(make_page(space, trials)))
    write_atomically(space.output / "best.yaml", dump_yaml(best.values))
    return Tuned(tuple(trials), best, report)
