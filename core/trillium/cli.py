"""The `trillium` command: sub-commands attach by entry points, errors become one sentence.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted. Importing this module loads neither
torch nor any application's heavy part; commands import what they need when they are called.
"""

import errno
import json
import logging
import os
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from trillium.errors import BackendError, ConfigError
from trillium.objectives.cli import app as objectives_app

COMMANDS = "trillium.commands"


class _SentenceGroup(TyperGroup):
    """Report our own exceptions without a stack; let every other one show where it came from."""

    # Typer keeps the class of its contexts private, hence `object`.
    def invoke(self, ctx: object) -> object:
        try:
            result: object = super().invoke(ctx)  # type: ignore[arg-type]
            if sys.stdout is not None:  # None where the caller closed it
                sys.stdout.flush()
            return result
        except KeyboardInterrupt as error:
            _say(_interrupted(error))
            raise SystemExit(130) from None
        except BrokenPipeError:
            _drop_output()
            raise SystemExit(1) from None
        except Exception as error:
            code = exit_code(error)
            if isinstance(error, OSError) and error.errno == errno.ENOSPC and not error.filename:
                _drop_output()
                _say("standard output cannot be written: the disk is full; free some space")
                raise SystemExit(1) from None
            if code is None:
                raise
            _say(str(error))
            raise SystemExit(code) from None


app = typer.Typer(
    cls=_SentenceGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Align code, mathematics and recommendation models with checked preferences.",
)
assets_app = typer.Typer(no_args_is_help=True, help="Real models and data by name, pinned.")
runs_app = typer.Typer(no_args_is_help=True, help="List, show and compare run folders.")
app.add_typer(assets_app, name="assets")
app.add_typer(runs_app, name="runs")
app.add_typer(objectives_app, name="objectives")


def main() -> None:
    """Run the command line; this is what the `trillium` script calls."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    # Bars of libraries; our own know whether the output is a terminal.
    os.environ.setdefault("TQDM_DISABLE", "1")
    # Said on import, about an optional kernel that nobody asked for.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # It writes its warnings to the terminal itself.
    logging.getLogger("huggingface_hub").propagate = False
    app()


def exit_code(error: BaseException) -> int | None:
    """Return 2 for the caller's mistake, 1 for a failure of ours, None for the unexpected."""
    if not type(error).__module__.startswith("trillium"):
        return None
    if isinstance(error, ValueError):
        return 2
    return 1 if isinstance(error, RuntimeError) else None


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """Say what this machine can do, and what to do about what is missing."""
    from dataclasses import asdict

    from trillium.doctor import examine, render

    findings = examine()
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        typer.echo(render(findings))
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


@assets_app.command("list")
def list_assets() -> None:
    """List the assets: size, whether cached, licence."""
    from trillium.assets import ASSETS, cache_folder, is_cached

    cache = cache_folder()
    for asset in ASSETS.values():
        state = "cached" if is_cached(asset, cache) else "not fetched"
        size = f"{asset.n_bytes / 1e6:.2f} MB"
        typer.echo(f"{asset.name:24} {size:>9}  {state:12} {asset.help}")
        typer.echo(f"{'':24} licence {asset.license} ({asset.license_url})")
    typer.echo(f"cache: {cache}")


@assets_app.command("get")
def get_asset(name: Annotated[str, typer.Argument(help="A name from `assets list`.")]) -> None:
    """Fetch an asset, check its hashes, and print its folder."""
    from trillium.assets import fetch_asset

    typer.echo(fetch_asset(name))


@runs_app.command("list")
def list_runs(
    root: Annotated[Path, typer.Argument(help="Where to look.")] = Path("runs"),
) -> None:
    """List the run folders under a folder, with their stages."""
    from trillium.compare import summarise
    from trillium.manifest import find_runs

    if root.exists() and not root.is_dir():
        raise ConfigError(f"{root}: is a file; give the folder that holds the runs")
    folders = find_runs(root)
    if not folders:
        typer.echo(f"no runs under {root}", err=True)
    for folder in folders:
        typer.echo(summarise(folder))


@runs_app.command("show")
def show_run(folder: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Show the stages of a run: state, seconds, counts, outputs."""
    from trillium.compare import describe

    typer.echo(describe(folder))


@runs_app.command("compare")
def compare_runs(
    folders: Annotated[list[Path], typer.Argument(help="Two or more run folders.")],
    html: Annotated[
        Path | None, typer.Option(help="A page to write: curves, evaluations and samples too.")
    ] = None,
) -> None:
    """Show where the settings and figures of runs differ; with --html, all they can be told by."""
    from trillium.compare import compare

    typer.echo(compare(folders))
    if html is not None:
        from trillium.files import write_atomically
        from trillium.report import render_report
        from trillium.report.compare_runs import compare_page

        write_atomically(html, render_report(compare_page(folders)))
        typer.echo(f"page: {html}")


@runs_app.command("browse")
def browse_runs(
    targets: Annotated[list[Path], typer.Argument(help="Run folders, or preference files.")],
    output: Annotated[Path, typer.Option(help="The page.")] = Path("browse.html"),
    tokenizer: Annotated[
        str | None, typer.Option(help="For token ids; default: the run's base model.")
    ] = None,
    max_samples: Annotated[int, typer.Option(min=1, help="Samples on the page.")] = 2000,
) -> None:
    """Write one searchable page of the pairs, trees and trajectories in runs or files."""
    from trillium.files import write_atomically
    from trillium.report.browse import browse

    write_atomically(output, browse(targets, tokenizer=tokenizer, max_samples=max_samples))
    typer.echo(f"page: {output}")


def _attach_commands() -> None:
    """Add what the installed packages offer; what cannot be loaded says so when it is called."""
    for entry in sorted(metadata.entry_points(group=COMMANDS), key=lambda entry: entry.name):
        try:
            found: object = entry.load()
        except (ImportError, AttributeError) as error:
            _attach_broken(entry.name, f"{type(error).__name__}: {error}")
            continue
        if isinstance(found, typer.Typer):
            _attach_app(entry.name, found)
        elif callable(found):
            app.command(entry.name)(found)
        else:
            _attach_broken(entry.name, f"{entry.value} is no command")


def _attach_app(name: str, found: typer.Typer) -> None:
    """Add a group; one that holds a single command of its own name becomes that command."""
    commands = found.registered_commands
    names = [command.name or getattr(command.callback, "__name__", "") for command in commands]
    if names == [name] and commands[0].callback and not found.registered_groups:
        app.command(name, help=commands[0].help)(commands[0].callback)
    else:
        app.add_typer(found, name=name)


def _attach_broken(name: str, reason: str) -> None:
    def broken() -> None:
        raise BackendError(f"trillium {name}: cannot be loaded ({reason}); reinstall trillium")

    app.command(name, hidden=True, context_settings={"ignore_unknown_options": True})(broken)


def _drop_output() -> None:
    """Send what is left of standard output nowhere; else Python complains once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupted(error: KeyboardInterrupt) -> str:
    """Return what to say: whoever keeps finished work notes that at the interruption."""
    notes = dict.fromkeys(getattr(error, "__notes__", ()))
    if not notes:
        return "interrupted"
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return f"interrupted; {'; '.join(notes)}: {command}"


def _say(sentence: str) -> None:
    # A path or a value from a file may hold what no terminal can encode.
    typer.echo(f"trillium: {sentence}".encode(errors="backslashreplace").decode(), err=True)


_attach_commands()

if __name__ == "__main__":  # python -m trillium.cli, where no script is on the path
    main()
