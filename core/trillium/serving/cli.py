"""`trillium serve`: an OpenAI-compatible server for a run or for adapters."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from trillium.errors import BackendError
from trillium.serving.listening import SERVE_TOKEN, read_token

app = typer.Typer(help="Serve a run or adapters behind OpenAI's API.")


@app.command()
def serve(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN_OR_ADAPTERS...",
            help="Runs, adapter folders (NAME=FOLDER to name one), adapters.yaml, or a base.",
        ),
    ],
    base: Annotated[str | None, typer.Option(help="The base, where its name moved.")] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of a base on the hub.")] = None,
    chat_template: Annotated[
        Path | None, typer.Option(help="A Jinja file in place of the tokenizer's template.")
    ] = None,
    base_name: Annotated[str | None, typer.Option(help="What callers call the base.")] = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free port.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"What callers must know; default: {SERVE_TOKEN}."),
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Let every machine that reaches --host in.")
    ] = False,
    adapters_folder: Annotated[
        Path | None, typer.Option(help="Let callers load adapters below this folder.")
    ] = None,
    max_adapters: Annotated[
        int | None, typer.Option(min=1, help="Adapters at once; default: adapters.yaml's, or 16.")
    ] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Completions decoded together.")] = 8,
    max_waiting: Annotated[int, typer.Option(min=0, help="Completions that may wait.")] = 64,
    max_length: Annotated[
        int | None,
        typer.Option(min=2, help="Tokens of prompt and completion; default: likewise, or 4096."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a completion.")] = 1024,
    dtype: Annotated[
        Literal["auto", "bfloat16", "float32"], typer.Option(help="Of the base's weights.")
    ] = "auto",
    quantisation: Annotated[
        Literal["none", "nf4"], typer.Option(help="nf4: the base in 4 bits.")
    ] = "none",
) -> None:
    """Serve until SIGTERM, on this machine only unless told otherwise."""
    from trillium.serving.sources import find_sources

    sources = find_sources(targets, base=base, revision=revision, chat_template=chat_template)
    try:
        from trillium.serving.launch import LaunchSettings, serve_until_told
    except ModuleNotFoundError as error:
        raise BackendError(
            f'serve: needs {error.name}, which is not installed; pip install "trillium[service]"'
        ) from error
    settings = LaunchSettings(
        dtype=dtype,
        quantisation=quantisation,
        max_rows=max_rows,
        max_waiting=max_waiting,
        max_length=max_length,
        max_new_tokens=max_new_tokens,
        max_adapters=max_adapters,
        token=read_token(token_file, SERVE_TOKEN),
        adapters_folder=adapters_folder,
        base_name=base_name,
    )
    serve_until_told(sources, settings, address=(host, port), no_token=no_token)
