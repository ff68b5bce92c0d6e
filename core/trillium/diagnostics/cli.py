"""`trillium diagnose`: what a preference file promises, and what a run made of it."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Diagnose a preference file or a run: figures, thresholds, advice.")


@app.command()
def diagnose(
    target: Annotated[Path, typer.Argument(help="A preference file or a run folder.")],
    output: Annotated[
        Path | None, typer.Option(help="Where to write; default: a folder beside the target.")
    ] = None,
    pairs: Annotated[Path | None, typer.Option(help="Pairs, where the run keeps none.")] = None,
    base: Annotated[str | None, typer.Option(help="Base model; default: the run's.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Adapter; default: the run's.")] = None,
    beta: Annotated[float | None, typer.Option(help="Default: the run's, else 0.1.")] = None,
    agreement: Annotated[float, typer.Option(help="Share of annotators that agree.")] = 1.0,
    n_pairs: Annotated[int | None, typer.Option(help="Only the first pairs.")] = None,
    n_samples: Annotated[int, typer.Option(help="Prompts to sample replies to.")] = 16,
    max_length: Annotated[
        int | None, typer.Option(help="Most tokens of a pair; default: the run's, else 1024.")
    ] = None,
    scored_turns: Annotated[
        str | None,
        typer.Option(help="all | last | final_answer | explicit; default: the run's, else all."),
    ] = None,
    on_prefix_violation: Annotated[
        str | None, typer.Option(help="refuse | repair; default: the run's, else refuse.")
    ] = None,
    filter_ches: Annotated[
        tuple[float, Path] | None,
        typer.Option(metavar="KEEP OUT", help="Write the share KEEP of lowest CHES to OUT."),
    ] = None,
) -> None:
    """Print findings, write report.html; the same command again does only what is missing."""
    from trillium.diagnostics.config import check_target, resolve

    config, folder = resolve(
        target,
        output,
        filter_ches[0] if filter_ches else None,
        {
            "pairs": pairs,
            "base": base,
            "adapter": adapter,
            "beta": beta,
            "agreement": agreement,
            "n_pairs": n_pairs,
            "n_samples": n_samples,
            "max_length": max_length,
            "scored_turns": scored_turns,
            "on_prefix_violation": on_prefix_violation,
        },
    )
    check_target(target)
    from rich.console import Console

    from trillium.diagnostics.cli_text import render
    from trillium.diagnostics.diagnose import diagnose as run

    found = run(config, folder)
    Console(soft_wrap=True).print(render(found.findings))
    if filter_ches is not None:
        n_kept = found.write_filtered(*filter_ches)
        typer.echo(f"kept {n_kept:,} of {len(found.rows):,} pairs in {filter_ches[1]}")
    typer.echo(f"report: {found.report}")
