"""The `trillium sandbox` commands: run a file of requests, and say which levels hold here."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from trillium_sandbox import intake
from trillium_sandbox.base import Backend
from trillium_sandbox.cache import CachedBackend, ResultCache, name_backend
from trillium_sandbox.dispatch import MAX_PROGRAMS
from trillium_sandbox.errors import RequestError, SandboxError
from trillium_sandbox.levels import DEFAULT_LEVEL, LEVELS, probe
from trillium_sandbox.limits import Limits
from trillium_sandbox.opening import BackendName, LocalBackend, open_backend

app = typer.Typer(no_args_is_help=True, help="Run programs that nobody trusts.")

TOKEN = "TRILLIUM_SANDBOX_TOKEN"
"""The environment variable with the token of a service."""

_DEFAULTS = Limits()
_MEGABYTE = 1 << 20


@app.command()
def batch(
    requests: Annotated[str, typer.Argument(help="Requests, one JSON object a line; - for stdin.")],
    backend: Annotated[BackendName, typer.Option(help="Which backend runs them.")] = "embedded",
    wall_s: Annotated[float, typer.Option(help="Elapsed seconds.")] = _DEFAULTS.wall_s,
    cpu_s: Annotated[float, typer.Option(help="Processor seconds.")] = _DEFAULTS.cpu_s,
    memory_mb: Annotated[int, typer.Option(help="Memory of a program, MiB.")] = (
        _DEFAULTS.memory_bytes // _MEGABYTE
    ),
    disk_mb: Annotated[int, typer.Option(help="Its work folder, MiB.")] = (
        _DEFAULTS.disk_bytes // _MEGABYTE
    ),
    pids: Annotated[int, typer.Option(help="Its threads.")] = _DEFAULTS.n_processes,
    output_bytes: Annotated[int, typer.Option(help="Each of its outputs.")] = (
        _DEFAULTS.output_bytes
    ),
    min_level: Annotated[int, typer.Option(help="Refuse to run below this level.")] = DEFAULT_LEVEL,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Zygotes; default: one per core.")
    ] = None,
    allow_unsafe: Annotated[bool, typer.Option(help="Allow --min-level 0.")] = False,
    runtime: Annotated[
        str | None, typer.Option(help="Of --backend docker: runsc or kata, where installed.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The service of --backend http.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help=f"Its token; default: the variable {TOKEN}.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Keep results in this file; time and memory are replayed.")
    ] = None,
) -> None:
    """Run REQUESTS and print one reply per request, in order, as JSON lines.

    All requests are read and checked before the first one runs.
    """
    limits = Limits(wall_s, cpu_s, memory_mb << 20, disk_mb << 20, pids, output_bytes)
    name = "<stdin>" if requests == "-" else requests
    accepted = intake.read_lines(_lines(requests), name, limits)
    opened = open_backend(
        backend,
        min_level=min_level,
        n_workers=workers,
        allow_unsafe=allow_unsafe,
        runtime=runtime,
        url=url,
        token=_token(token_file),
    )
    with _cached(opened, backend, cache) as sandbox:
        try:
            for reply in sandbox.run(accepted):
                sys.stdout.write(json.dumps(reply.to_json()) + "\n")
                sys.stdout.flush()
        except KeyboardInterrupt as error:
            if cache is not None:
                error.add_note(f"results are kept in {cache}, the same command continues")
            raise


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free port.")] = 8080,
    backend: Annotated[LocalBackend, typer.Option(help="Which backend runs them.")] = "embedded",
    min_level: Annotated[int, typer.Option(help="Refuse to run below this level.")] = DEFAULT_LEVEL,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Zygotes; default: one per core.")
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="Of --backend docker: runsc or kata, where installed.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help=f"What callers must know; default: the variable {TOKEN}.")
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Let every machine that reaches --host in.")
    ] = False,
    cache: Annotated[Path | None, typer.Option(help="Keep results in this file.")] = None,
    max_queue: Annotated[int, typer.Option(help="Programs that may wait or run.")] = MAX_PROGRAMS,
    max_wall_s: Annotated[float, typer.Option(help="What a request may ask for.")] = 60.0,
    max_memory_mb: Annotated[
        int, typer.Option(help="What a request may ask for of memory and of disk, MiB.")
    ] = 4096,
) -> None:
    """Answer requests over HTTP until SIGTERM, on this machine only unless told otherwise."""
    try:
        from trillium_sandbox.service.app import ServiceSettings
        from trillium_sandbox.service.serving import serve_until_told
    except ModuleNotFoundError as error:
        raise SandboxError(
            f'sandbox: the service needs {error.name}; pip install "trillium[service]"'
        ) from error
    settings = ServiceSettings(backend, _token(token_file), max_wall_s, max_memory_mb << 20)
    serve_until_told(
        lambda: open_backend(backend, min_level=min_level, n_workers=workers, runtime=runtime),
        settings,
        address=(host, port),
        no_token=no_token,
        cache_path=cache,
        max_queue=max_queue,
    )


@app.command(name="probe")
def probe_levels(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """Try every isolation level and say which hold on this machine, and why not."""
    probes = probe()
    if as_json:
        rows = [{"level": p.level, "available": p.available, "reason": p.reason} for p in probes]
        print(json.dumps(rows))
        return
    for level, found in zip(LEVELS, probes, strict=True):
        mark = "yes" if found.available else "no"
        print(f"{level.number} {level.name:<11} {mark:<4} {found.reason}")
        print(f"  stops         {level.stops}")
        print(f"  does not stop {level.does_not_stop}")


def _lines(name: str) -> list[bytes]:
    if name == "-":
        return sys.stdin.buffer.readlines()
    try:
        return Path(name).read_bytes().splitlines()
    except OSError as error:
        raise RequestError(
            f"{name}: cannot be read ({error.strerror}); give a file of JSON lines, or - for stdin"
        ) from error


def _token(file: Path | None) -> str | None:
    """Return the token, which is never an argument: those are visible to every user."""
    if file is None:
        return os.environ.get(TOKEN) or None
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{file}: cannot be read ({error}); give a file with a token") from error
    if not token or not token.isascii() or not token.isprintable():
        raise RequestError(f"{file}: holds no token (one line of printable ASCII); write one")
    return token


def _cached(opened: Backend, name: str, path: Path | None) -> Backend:
    if path is None:
        return opened
    full_name = name_backend(name, opened)
    return CachedBackend(opened, ResultCache(path, backend=full_name, level=opened.level))
