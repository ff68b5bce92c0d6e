"""`trillium code`: run the application, check task files, rank a saved pass/fail matrix."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Align a code model with programs it tested itself.")
tasks_app = typer.Typer(no_args_is_help=True, help="Task files.")
app.add_typer(tasks_app, name="tasks")


@app.command()
def run(
    config: Annotated[str, typer.Argument(help="A run file, or a preset: demo, humaneval, ...")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value")] = None,
    output: Annotated[Path | None, typer.Option(help="Run folder; overrides `output`.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and count only.")] = False,
) -> None:
    """Sample, test, rank, align, evaluate, report; the same command again continues."""
    from rich.console import Console
    from trillium.config import find_run_file, load_config

    from trillium_code.config import CodeConfig

    given = list(overrides or []) + ([f"output={output}"] if output else [])
    loaded = load_config(CodeConfig, find_run_file(config, package="trillium_code"), given)
    console = Console()
    if dry_run:
        from trillium_code.preview import preview

        for text in preview(loaded):
            console.print(text, soft_wrap=True)
        return
    from trillium_code.pipeline import run_code
    from trillium_code.report_page import write_report
    from trillium_code.summary import measure_cost, measure_gains, render_summary

    result = run_code(loaded)
    gains = measure_gains(result.before, result.after, loaded.evaluate.k)
    console.print(render_summary(gains, measure_cost(result.stages), result.stages))
    console.print(f"report: {write_report(loaded, result)}", soft_wrap=True)


@tasks_app.command("check")
def check(
    source: Annotated[str, typer.Argument(help="own, humaneval, or a .jsonl file")] = "own",
) -> None:
    """Read a task file and run its reference and wrong solutions in the sandbox."""
    from trillium_code.execution import SandboxConfig
    from trillium_code.task_check import check_tasks

    counts, problems = check_tasks(source, SandboxConfig())
    typer.echo("\n".join([counts, *problems]))
    if problems:
        raise typer.Exit(2)


@app.command()
def rank(
    matrix: Annotated[Path, typer.Argument(help=".json, .csv or .npy; a row per program")],
    scorer: Annotated[str, typer.Option(help="codedpo, pass_count, codet or single_test")] = (
        "codedpo"
    ),
    min_chosen_pass_frac: Annotated[
        float, typer.Option(min=0, max=1, help="share of the tests that the chosen must pass")
    ] = 0.5,
) -> None:
    """Rank the programs of a pass/fail matrix and show the pair they give."""
    from trillium_code.matrix_files import rank_file

    typer.echo(rank_file(matrix, scorer=scorer, min_chosen_pass_frac=min_chosen_pass_frac))
