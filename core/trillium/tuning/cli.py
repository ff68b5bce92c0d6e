"""`trillium tune`: search settings of a run file."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Search settings of a run file by Bayesian optimisation.")


@app.command()
def tune(
    run: Annotated[str, typer.Argument(help="A run file of trillium train, or a preset.")],
    space: Annotated[Path, typer.Argument(help="What to tune, by which measure.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key.path=value for the run, space.KEY=value")
    ] = None,
) -> None:
    """Try settings, keep every trial, recommend one; the same command again continues."""
    from trillium.config import find_run_file, load_config
    from trillium.tuning.space import SpaceConfig, split

    of_run, of_space = split(overrides or [])
    config = load_config(SpaceConfig, space, of_space)
    path = find_run_file(run, package="trillium")
    from rich.console import Console

    from trillium.tuning.cli_text import render
    from trillium.tuning.tune import tune as search

    found = search(path, config, of_run, lambda sentence: typer.echo(sentence, err=True))
    Console(soft_wrap=True).print(render(config, found))
    typer.echo(f"report: {found.report}")
