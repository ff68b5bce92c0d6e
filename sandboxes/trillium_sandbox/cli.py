"""The `trillium sandbox` commands: run a file of requests, and say which levels hold here."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from trillium_sandbox.errors import RequestError
from trillium_sandbox.levels import DEFAULT_LEVEL, LEVELS, probe
from trillium_sandbox.limits import Limits
from trillium_sandbox.opening import BackendName, open_backend
from trillium_sandbox.verdicts import Request

app = typer.Typer(no_args_is_help=True, help="Run programs that nobody trusts.")

_DEFAULTS = Limits()
_MEGABYTE = 1 << 20
_MOST_PROBLEMS = 20


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
    workers: Annotated[int | None, typer.Option(help="Zygotes; default: one per core.")] = None,
    allow_unsafe: Annotated[bool, typer.Option(help="Allow --min-level 0.")] = False,
) -> None:
    """Run REQUESTS and print one reply per request, in order, as JSON lines.

    All requests are read and checked before the first one runs.
    """
    limits = Limits(wall_s, cpu_s, memory_mb << 20, disk_mb << 20, pids, output_bytes)
    accepted = _accept(_lines(requests), "<stdin>" if requests == "-" else requests, limits)
    with open_backend(
        backend, min_level=min_level, n_workers=workers, allow_unsafe=allow_unsafe
    ) as opened:
        for reply in opened.run(accepted):
            sys.stdout.write(json.dumps(reply.to_json()) + "\n")
            sys.stdout.flush()


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


def _accept(lines: list[bytes], name: str, limits: Limits) -> list[Request]:
    """Return the requests of all lines, or raise one error that names every bad line."""
    accepted, problems = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            accepted.append(Request.from_json(json.loads(line), limits=limits))
        except UnicodeDecodeError:
            problems.append(f"{name}:{number}: is no UTF-8 text; give a file of JSON lines")
        except (ValueError, RecursionError) as error:
            problems.append(f"{name}:{number}: {error}; correct the line or drop it")
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        problems[_MOST_PROBLEMS:] = [f"{name}: and {more} more bad lines"] if more > 0 else []
        raise RequestError("\n".join(problems))
    if not accepted:
        raise RequestError(f"{name}: holds no request (needs a JSON object per line); add one")
    return accepted
