"""`trillium rec`: check a log, fit semantic ids, train and judge a recommender."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trillium_rec.catalogue_cli import app as catalogue_app

if TYPE_CHECKING:
    from trillium_rec.config import RecConfig

app = typer.Typer(no_args_is_help=True, help="Recommend with semantic ids and checked metrics.")
app.add_typer(catalogue_app, name="catalogue")

Config = Annotated[str, typer.Argument(help="A run file, or a preset: demo, tiny, ...")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key.path=value")]
Output = Annotated[Path | None, typer.Option(help="Run folder; overrides `output`.")]


@app.command()
def run(config: Config, overrides: Overrides = None, output: Output = None) -> None:
    """Fit ids, train, judge and report; the same command again continues."""
    loaded = _load(config, overrides, output)
    from rich.console import Console

    from trillium_rec.pipeline import run_rec
    from trillium_rec.report_page import write_report
    from trillium_rec.summary import describe_alignment, render_evaluations

    result = run_rec(loaded)
    console = Console()
    console.print(render_evaluations(result.evaluations))
    if result.alignment is not None:
        console.print("\n".join(describe_alignment(result.alignment)), soft_wrap=True)
    console.print(f"report: {write_report(loaded, result)}", soft_wrap=True)


@app.command()
def check(config: Config, overrides: Overrides = None) -> None:
    """Read the log of a run file and say what is in it and what is left out."""
    from trillium_rec.preparation import describe_log

    typer.echo("\n".join(describe_log(_load(config, overrides, None))))


@app.command()
def ids(config: Config, overrides: Overrides = None, output: Output = None) -> None:
    """Fit the semantic ids of a run, and say how good they are."""
    loaded = _load(config, overrides, output)
    from trillium_rec.pipeline import run_rec
    from trillium_rec.summary import describe_quality

    result = run_rec(loaded, until="ids")
    typer.echo("\n".join([*describe_quality(result.quality), f"{result.folder / 'ids'}"]))


@app.command()
def train(config: Config, overrides: Overrides = None, output: Output = None) -> None:
    """Train the model of a run; the same command again continues."""
    loaded = _load(config, overrides, output)
    from trillium_rec.pipeline import run_rec

    result = run_rec(loaded, until="train")
    typer.echo(f"{result.folder / 'model'}: {result.stages['train'].counts}")


@app.command()
def serve(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    model: Annotated[
        Path | None, typer.Option(help="Folder of an aligned model of this run; default: its own.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any free one.")] = 8090,
    token_file: Annotated[
        Path | None, typer.Option(help="Its token; default: the variable TRILLIUM_REC_TOKEN.")
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Let every machine that reaches --host in.")
    ] = False,
    max_batch: Annotated[int, typer.Option(min=1, help="Questions in one pass.")] = 64,
    wait_ms: Annotated[float, typer.Option(min=0, help="Wait of a first question.")] = 2.0,
    max_waiting: Annotated[int, typer.Option(min=1, help="Questions in the queue.")] = 1024,
    watch_s: Annotated[float, typer.Option(min=0.1, help="Between looks for a catalogue.")] = 2.0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one pass.")] = 1,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Default: the run's own.")
    ] = None,
) -> None:
    """Answer POST /recommend over HTTP; changes of the catalogue are taken up without a pause."""
    from importlib.util import find_spec

    from trillium.errors import BackendError

    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise BackendError("trillium rec serve: FastAPI is missing; pip install 'trillium[rec]'")
    from trillium.serving.listening import read_token

    from trillium_rec.served_run import ServedRun

    served = ServedRun.open(run, model, device)
    from trillium_rec.serving.app import ServingSettings
    from trillium_rec.serving.server import TOKEN, serve_until_told

    settings = ServingSettings(
        read_token(token_file, TOKEN), max_batch, wait_ms / 1000, max_waiting, watch_s
    )
    serve_until_told(
        served,
        settings,
        host=host,
        port=port,
        no_token=no_token,
        n_threads=threads,
    )


@app.command()
def ablate(
    config: Annotated[str, typer.Argument(help="A run file, or the preset alignment")],
    overrides: Overrides = None,
    output: Output = None,
) -> None:
    """Compare ways of preference alignment on equal sessions, over several seeds."""
    from trillium.config import find_run_file, load_config, write_override

    from trillium_rec.alignment.ablation_config import AblationConfig

    given = list(overrides or []) + ([write_override("output", output)] if output else [])
    loaded = load_config(AblationConfig, find_run_file(config, package="trillium_rec"), given)
    from rich.console import Console

    from trillium_rec.alignment.ablation import run_ablation
    from trillium_rec.alignment.ablation_report import write_results
    from trillium_rec.alignment.ablation_table import render_table, tabulate

    results = run_ablation(loaded)
    console = Console()
    console.print(render_table(tabulate(results), results))
    console.print(f"report: {write_results(loaded, results)}", soft_wrap=True)


def _load(config: str, overrides: list[str] | None, output: Path | None) -> "RecConfig":
    from importlib.util import find_spec

    from trillium.config import find_run_file, load_config, write_override
    from trillium.errors import BackendError

    from trillium_rec.config import RecConfig

    if find_spec("scipy") is None:
        raise BackendError("trillium rec: scipy is missing; pip install 'trillium[rec]'")
    given = list(overrides or []) + ([write_override("output", output)] if output else [])
    return load_config(RecConfig, find_run_file(config, package="trillium_rec"), given)
