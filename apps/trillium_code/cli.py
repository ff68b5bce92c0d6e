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
    from trillium.config import find_run_file, load_config, write_override

    from trillium_code.config import CodeConfig

    given = list(overrides or []) + ([write_override("output", output)] if output else [])
    loaded = load_config(CodeConfig, find_run_file(config, package="trillium_code"), given)
    console = Console()
    if dry_run:
        from trillium_code.preview import preview

        for text in preview(loaded):
            console.print(text, soft_wrap=True)
        return
    from trillium_code.evalplus import write_samples
    from trillium_code.pipeline import run_code
    from trillium_code.report_page import write_report
    from trillium_code.summary import measure_cost, measure_result, render_summary

    result = run_code(loaded)
    write_samples(result.folder / "evalplus_before.jsonl", result.before)
    write_samples(result.folder / "evalplus_after.jsonl", result.after)
    gains = measure_result(result, loaded.evaluate.k)
    console.print(render_summary(gains, measure_cost(result.stages), result.stages))
    for problem in result.tasks.set_aside:
        console.print(f"set aside: {problem}", soft_wrap=True)
    console.print(f"report: {write_report(loaded, result)}", soft_wrap=True)


@app.command()
def ablate(
    config: Annotated[str, typer.Argument(help="A file, or a preset: ablation, own, ...")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder; overrides `output`.")] = None,
) -> None:
    """Compare selectors, objectives and kinds of pairs on equal samples, over several seeds."""
    from rich.console import Console
    from trillium.config import find_run_file, load_config, write_override

    from trillium_code.ablation_config import AblationConfig

    given = list(overrides or []) + ([write_override("output", output)] if output else [])
    path = find_run_file(config, package="trillium_code", command="ablate")
    loaded = load_config(AblationConfig, path, given)
    from trillium_code.ablation import run_ablation
    from trillium_code.ablation_table import render_table, tabulate, write_results
    from trillium_code.preparation import prepare_tasks
    from trillium_code.preview import describe_tasks

    typer.echo(describe_tasks(prepare_tasks(loaded.run)))
    results = run_ablation(loaded, lambda finished: write_results(loaded, finished))
    n_tasks = len(next(iter(results.values())).before)
    console = Console()
    console.print(render_table(tabulate(results), n_tasks=n_tasks, n_seeds=len(results)))
    console.print(f"report: {write_results(loaded, results)}", soft_wrap=True)


@tasks_app.command("check")
def check(
    source: Annotated[str, typer.Argument(help="own, humaneval, or a .jsonl file")] = "own",
    wall_s: Annotated[float, typer.Option(min=0.1, help="seconds for each test")] = 3.0,
) -> None:
    """Read a task file and run its reference and wrong solutions in the sandbox."""
    from trillium_code.execution import SandboxConfig
    from trillium_code.task_check import check_tasks

    counts, problems = check_tasks(source, SandboxConfig(wall_s=wall_s))
    typer.echo("\n".join([counts, *problems]))
    if problems:
        raise typer.Exit(2)


@tasks_app.command("invent")
def invent(
    config: Annotated[str, typer.Argument(help="A file, or the preset invent")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder; overrides `output`.")] = None,
) -> None:
    """Invent training tasks from code snippets, without those that repeat evaluation tasks."""
    from trillium.config import find_run_file, load_config, write_override

    from trillium_code.invention_config import InventionConfig

    given = list(overrides or []) + ([write_override("output", output)] if output else [])
    path = find_run_file(config, package="trillium_code", command="invent")
    loaded = load_config(InventionConfig, path, given)
    from trillium_code.invention import invent_tasks

    found = invent_tasks(loaded)
    for name, count in found.counts.items():
        typer.echo(f"{name.replace('_', ' ')}: {int(count)}")
    typer.echo(f"tasks: {found.path}")


@app.command()
def rank(
    matrix: Annotated[Path, typer.Argument(help=".json, .csv or .npy; a row per program")],
    scorer: Annotated[
        str, typer.Option(help="codedpo, dstc, pass_count, codet, plum, single_test or random")
    ] = "codedpo",
    min_chosen_pass_frac: Annotated[
        float, typer.Option(min=0, max=1, help="share of the tests that the chosen must pass")
    ] = 0.5,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="more of `rank`: joint.chosen_test=random")
    ] = None,
) -> None:
    """Rank the programs of a pass/fail matrix and show the pairs they give."""
    from trillium.config import load_config

    from trillium_code.matrix_files import rank_file
    from trillium_code.pairs import RankConfig

    given = [f"scorer={scorer}", f"min_chosen_pass_frac={min_chosen_pass_frac}"]
    config = load_config(RankConfig, None, given + list(overrides or []))
    typer.echo(rank_file(matrix, config=config))
