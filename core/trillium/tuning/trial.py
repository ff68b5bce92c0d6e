"""One trial: the run file with other settings, trained in a folder of its own, and its measure."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from trillium.config import load_config, write_override
from trillium.errors import BackendError, ConfigError
from trillium.training.align import AlignResult
from trillium.training.run_config import TrainRun
from trillium.training.runfile import Prepared, prepare, run_training
from trillium.tuning.space import SpaceConfig


def check_run(
    path: Path, overrides: Sequence[str], space: SpaceConfig
) -> tuple[TrainRun, Prepared]:
    """Return the run at the upper end of every parameter, with its rows; check the lower end too.

    Loads a tokenizer and no model.
    Raises ConfigError for keys and bounds that the run file does not take, and for a measure of
    held-out rows when the run evaluates none.
    """
    for end in (0.0, 1.0):
        values = space.values_at([end] * len(space.parameters))
        run = load_config(TrainRun, path, [*overrides, *_as_overrides(values)])
    if space.measure.startswith("eval_") and run.train.eval_steps is None:
        raise ConfigError(
            f"{path}: measure {space.measure} is of held-out rows and the run evaluates none; set "
            "data.held_out and train.eval_steps"
        )
    return run, prepare(run)


def make_evaluate(
    path: Path,
    overrides: Sequence[str],
    space: SpaceConfig,
    folder: Path,
    say: Callable[[str], None],
) -> Callable[[int, Mapping[str, float | int], int], float]:
    """Return the function that trains one trial with one seed; its folder resumes by itself."""

    def evaluate(trial: int, values: Mapping[str, float | int], seed: int) -> float:
        output = folder / f"{trial:03}-seed{seed}"
        place = write_override("output", output)
        settings = [*overrides, *_as_overrides(values), f"train.seed={seed}", place]
        said = ", ".join(f"{name}={value:.4g}" for name, value in values.items())
        say(f"trial {trial}, seed {seed}: {said}")
        result = run_training(load_config(TrainRun, path, settings), lambda _: None)
        return read_measure(result, space.measure)

    return evaluate


def read_measure(result: AlignResult, name: str) -> float:
    """Return a measure of the last held-out evaluation, or of the last step.

    Raises ConfigError when neither has it, BackendError when it is not finite.
    """
    rows = [*result.metrics[-1:], *result.evaluations[-1:]]
    found = {key: value for row in rows for key, value in row.items()}
    if name not in found:
        known = ", ".join(sorted(key for key in found if key != "step"))
        raise ConfigError(f"measure {name}: the run has no such measure (it has {known})")
    value = float(found[name])
    if not math.isfinite(value):
        raise BackendError(f"measure {name} is {value}; the settings of this trial diverge")
    return value


def _as_overrides(values: Mapping[str, float | int]) -> list[str]:
    return [f"{name}={value!r}" for name, value in values.items()]
