"""`trillium math`: run the application; or write problems, grade, solve, evaluate by themselves."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Align agents that compute, check and search.")


@app.command()
def run(
    config: Annotated[str, typer.Argument(help="A run file, or a preset: demo, ...")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value")] = None,
    output: Annotated[Path | None, typer.Option(help="Run folder; overrides `output`.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and count only.")] = False,
) -> None:
    """Warm up, roll out, grade, align, evaluate, report; the same command again continues."""
    from rich.console import Console
    from trillium.config import find_run_file, load_config, write_override

    from trillium_math.config import MathConfig

    given = list(overrides or []) + ([write_override("output", output)] if output else [])
    loaded = load_config(MathConfig, find_run_file(config, package="trillium_math"), given)
    console = Console()
    if dry_run:
        from trillium_math.preview import preview

        for text in preview(loaded):
            console.print(text, soft_wrap=True)
        return
    from trillium_math.pipeline import run_math
    from trillium_math.report_page import write_report
    from trillium_math.summary import measure_gains, render_summary

    result = run_math(loaded)
    gains = measure_gains(result, loaded.evaluate.k)
    console.print(render_summary(gains, result.stages))
    console.print(f"report: {write_report(loaded, result, gains)}", soft_wrap=True)


@app.command()
def arms(
    config: Annotated[str, typer.Argument(help="A file, or a preset: arms, arms_gpu, ...")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder; overrides `output`.")] = None,
    finished: Annotated[
        bool, typer.Option("--finished", help="Only show the arms that are finished so far.")
    ] = False,
) -> None:
    """Compare methods from one warm-up policy at one sampling budget, over seeds."""
    from rich.console import Console
    from trillium.config import find_run_file, load_config, write_override

    from trillium_math.arms_config import ArmsConfig

    given = list(overrides or []) + ([write_override("output", output)] if output else [])
    loaded = load_config(ArmsConfig, find_run_file(config, package="trillium_math"), given)
    from trillium_math.arms import finished_arms, run_arms
    from trillium_math.arms_table import render_tables, write_results

    if finished:
        results = finished_arms(loaded)
    else:
        results = run_arms(loaded, lambda so_far: write_results(loaded, so_far))
    console = Console()
    for table in render_tables(results):
        console.print(table)
    console.print(f"report: {write_results(loaded, results)}", soft_wrap=True)


@app.command()
def problems(
    output: Annotated[Path, typer.Argument(help="A .jsonl file to write.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="source=own n_problems=100 split=train ...")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generators.")] = 0,
) -> None:
    """Write problems with answers, reasoning and solutions as JSON lines."""
    from trillium.config import load_config

    from trillium_math.problems.collection import ProblemSource, collect_problems
    from trillium_math.problems.problem_files import write_problems

    source = load_config(ProblemSource, None, overrides or [])
    found = collect_problems(source, seed=seed)
    write_problems(output, found)
    typer.echo(f"{output}: {len(found)} problems")


@app.command()
def grade(
    pairs: Annotated[str, typer.Argument(help='JSON lines of id, kind, gold, prediction; or "-"')],
    disagreements: Annotated[
        Path | None, typer.Option(help="Ask math-verify too and write where it disagrees.")
    ] = None,
) -> None:
    """Grade answers or whole responses; prints id, correct, extracted per line."""
    from trillium_math.grading.pairs_file import grade_pairs, read_pairs

    for verdict in grade_pairs(read_pairs(pairs), disagreements=disagreements):
        typer.echo(json.dumps(verdict))


@app.command()
def solve(
    problems: Annotated[Path, typer.Argument(help="A .jsonl file of problems.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="policy.adapter=DIR sampling.n_samples=4 ...")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file of the same keys.")] = None,
    output: Annotated[Path | None, typer.Option(help="Run folder; overrides `output`.")] = None,
) -> None:
    """Let a policy work on problems with the Python tool; the same command again continues."""
    from trillium.config import load_config, write_override

    from trillium_math.agent.solve_config import SolveConfig

    given = list(overrides or []) + ([write_override("output", output)] if output else [])
    loaded = load_config(SolveConfig, config, given)
    from trillium_math.problems.problem_files import read_problems

    found = read_problems(problems)  # a mistake in it need not wait for what computes
    from trillium_math.agent.solve import solve_problems

    counts = solve_problems(loaded, found, source=problems)
    typer.echo("\n".join(f"{name}: {value}" for name, value in counts.items()))
    typer.echo(f"{loaded.output / 'trajectories.jsonl'}")


@app.command()
def evaluate(
    trajectories: Annotated[Path, typer.Argument(help="trajectories.jsonl of `solve`.")],
    problems: Annotated[Path, typer.Argument(help="The problems they are about.")],
    k: Annotated[
        list[int] | None, typer.Option(min=1, help="k of pass@k; may be repeated.")
    ] = None,
) -> None:
    """Measure trajectories: accuracy by family, difficulty and turns, pass@k, majority vote."""
    from rich.console import Console

    from trillium_math.evaluation import evaluate_files
    from trillium_math.summary import render_evaluation

    Console().print(render_evaluation(evaluate_files(trajectories, problems, k or [1])))
