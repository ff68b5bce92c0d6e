"""`trillium train`: align a model on a preference file."""

from typing import Annotated

import typer

app = typer.Typer(help="Align a model on a preference file.")


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A run file, or a preset: minimal.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key.path=value, such as train.max_steps=20")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all, count, show a tree; start nothing.")
    ] = False,
) -> None:
    """Train on a file of preferences (TRL's formats); the same command again continues."""
    from trillium.config import find_run_file, load_config
    from trillium.training.run_config import TrainRun, check_files

    run = load_config(TrainRun, find_run_file(config, package="trillium"), overrides or [])
    check_files(run)
    # What is wrong so far is said before anything that trains is imported.
    from rich.console import Console

    from trillium.training.memory import plan_memory
    from trillium.training.processes import joined_processes, wants_sharding
    from trillium.training.runfile import prepare, run_training
    from trillium.training.summary import summarise

    console = Console()
    if dry_run:
        prepared = prepare(run, shards=wants_sharding())
        console.print(prepared.preview())
        plan = plan_memory(run.policy, run.train, prepared.trees, prepared.base)
        if plan is not None:
            console.print(plan.describe(), highlight=False, soft_wrap=True)
        return
    with joined_processes() as processes:
        result = run_training(run, lambda sentence: typer.echo(sentence, err=True), processes)
    if processes.is_first:
        console.print(summarise(result))
