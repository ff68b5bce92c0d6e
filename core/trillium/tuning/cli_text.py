"""The table that `trillium tune` ends with."""

from rich.table import Table

from trillium.tuning.space import SpaceConfig
from trillium.tuning.tune import Tuned


def render(space: SpaceConfig, found: Tuned) -> Table:
    """Return the trials as a table, the recommended one marked."""
    table = Table()
    for name in ("trial", *space.parameters, space.measure, "seeds", ""):
        table.add_column(name, overflow="fold")
    for trial in found.trials:
        mean = "failed" if trial.mean is None else f"{trial.mean:.4g}"
        mark = "recommended" if trial.number == found.best.number else ""
        values = [f"{value:.4g}" for value in trial.values.values()]
        table.add_row(str(trial.number), *values, mean, str(len(trial.results)), mark)
    return table
