"""What `trillium merge` reads from its command line, and the table of a sweep."""

from collections.abc import Mapping, Sequence

from pydantic import ValidationError
from rich.table import Table

from trillium.errors import ConfigError
from trillium.merging.config import MergeConfig
from trillium.merging.page import measures_of


def parse(options: Mapping[str, object], weight: float | None, weights: str | None) -> MergeConfig:
    """Return the configuration; raises ConfigError for options that do not go together."""
    chosen: tuple[float, ...] | None = None
    if weight is not None and weights is not None:
        raise ConfigError("merge: --weight and --weights exclude one another; give one of them")
    if weight is not None:
        inputs = options["inputs"]
        assert isinstance(inputs, list)
        if len(inputs) != 2:
            raise ConfigError(
                f"merge: --weight is for two inputs, not {len(inputs)}; give --weights A,B,C"
            )
        chosen = (1 - weight, weight)
    if weights is not None:
        try:
            chosen = tuple(float(one) for one in weights.split(","))
        except ValueError:
            raise ConfigError(
                f"--weights {weights}: is no list of numbers (such as 0.5,0.3,0.2); correct it"
            ) from None
    try:
        return MergeConfig.model_validate({**options, "weights": chosen})
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("inputs",):
            raise ConfigError("merge: one input (needs two or more); name another folder") from None
        where = f"--{first['loc'][0]} {first['input']}: " if first["loc"] else ""
        said = str(first["msg"]).removeprefix("Value error, ")
        raise ConfigError(f"merge: {where}{said}") from None


def render(rows: Sequence[Mapping[str, object]]) -> Table:
    """Return the points of a sweep as a table."""
    sets = list(measures_of(rows[0]))
    keys = ("accuracy", "accuracy_mean", "chosen")
    table = Table("weight", *(f"{name}: {key}" for name in sets for key in keys))
    for row in rows:
        figures = [f"{cell[key]:.4g}" for cell in measures_of(row).values() for key in keys]
        table.add_row(f"{row['weight']:.3g}", *figures)
    return table
