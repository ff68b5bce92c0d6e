"""`trillium objectives`: the table of methods, one method in full, and number cases in files."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="objectives", help="List, explain and check the objectives.", no_args_is_help=True
)


@app.command("list")
def list_objectives(
    markdown: Annotated[bool, typer.Option(help="Print the table of the README.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object per line.")] = False,
) -> None:
    """Print every objective with its paper, what it needs and how it compares with TRL."""
    from trillium.objectives.describe import console_table, json_rows, markdown_table

    if as_json:
        typer.echo("\n".join(json_rows()))
    elif markdown:
        typer.echo(markdown_table())
    else:
        typer.echo(console_table())


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="As printed by `trillium objectives list`.")],
) -> None:
    """Print one objective: formula, source, options with bounds, and what it needs."""
    from trillium.objectives.describe import describe

    typer.echo(describe(name))


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="Case files (JSON).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one object per case.")] = False,
) -> None:
    """Compute every case in float64 and compare with its expected values (rtol 1e-9)."""
    from trillium.errors import DataError
    from trillium.objectives.cases import check_files

    report = check_files(files)
    checked = report.checked
    for each in checked:
        typer.echo(each.to_json() if as_json else each.to_text())
    n_missed = sum(bool(each.mismatches) for each in checked)
    n_compared = sum(bool(each.case.expected) for each in checked)
    typer.echo(
        f"{len(checked)} cases in {len(files)} files: {n_compared - n_missed} agree, "
        f"{n_missed} differ, {len(checked) - n_compared} have nothing to compare with",
        err=True,
    )
    if report.problems:
        raise DataError("\n".join(report.problems))
    if n_missed:
        raise typer.Exit(1)
