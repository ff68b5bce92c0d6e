"""`trillium merge`: several adapters or models into one, or a sweep over the mixing weight."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Merge adapters or models: linear, SLERP, TIES, DARE.")


@app.command()
def merge(
    inputs: Annotated[list[Path], typer.Argument(help="Adapter folders, or model folders.")],
    output: Annotated[Path, typer.Option(help="Where to write; must not exist yet.")],
    method: Annotated[
        str, typer.Option(help="linear | slerp | ties | dare_linear | dare_ties")
    ] = "linear",
    weight: Annotated[
        float | None, typer.Option(help="Mixing weight of the second of two inputs.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="One weight per input, such as 0.5,0.3,0.2")
    ] = None,
    density: Annotated[float, typer.Option(help="ties, dare: share of entries that stay.")] = 0.5,
    base: Annotated[
        str | None, typer.Option(help="Model that whole models were trained from: ties, dare.")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Rank for ties and dare.")] = None,
    seed: Annotated[int, typer.Option(help="Of what dare drops.")] = 0,
    sweep: Annotated[
        list[Path] | None, typer.Option(help="Pairs to measure merges on; may be repeated.")
    ] = None,
    points: Annotated[int, typer.Option(help="Weights of a sweep, from 0 to 1.")] = 5,
) -> None:
    """Write the merged adapter or model; with --sweep, measure it over the mixing weight."""
    from trillium.errors import ConfigError
    from trillium.merging.cli_text import parse, render
    from trillium.merging.config import are_adapters

    config = parse(
        {"inputs": inputs, "method": method, "density": density, "base": base, "rank": rank}
        | {"seed": seed},
        weight,
        weights,
    )
    is_adapter = are_adapters(config)
    if base is not None and is_adapter and not sweep:
        raise ConfigError(
            f"merge: --base {base} is for whole models, and these are adapters; leave it out"
        )
    if sweep and (weight is not None or weights is not None):
        raise ConfigError("merge: --sweep goes over all weights; leave --weight and --weights out")
    from trillium.merging.merge import merge as run
    from trillium.merging.merge import open_base

    if sweep:
        from rich.console import Console

        from trillium.merging.sweep import sweep as measure

        table = measure(
            config,
            sweep,
            points,
            output,
            base=None if is_adapter else open_base(config),
            is_adapter=is_adapter,
        )
        Console(soft_wrap=True).print(render(table))
        typer.echo(f"report: {output / 'report.html'}")
        return
    kept = run(config, output)
    said = "" if kept == 1 else f", which holds {kept:.1%} of the merged update"
    typer.echo(f"merged {len(inputs)} inputs by {method} into {output}{said}")
