"""The documentation's commands: run a page as its reader would, and compare what it shows.

    python tests/docs_pages.py [PAGE...]            run pages; say what differs
    python tests/docs_pages.py --write PAGE...      put the real output under each command

A ```console block holds commands behind `$ ` and their output. All commands of a page run in one
shell, in an empty folder with an empty HOME, in order. `# exits with N` behind a command names an
exit code other than 0. A shown line must be printed, numbers aside; `...` stands for lines that
are left out, and inside a line for the part of it that another processor's rounding may change.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "deploy" / "docs" / "pages"
CASES = ROOT / "tests" / "core" / "objectives" / "golden"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
_MARK = "@@@ exit "
_N_SHOWN = 24


@dataclass(frozen=True)
class Command:
    """A command of a page, the output shown below it, and the exit code it should have."""

    text: str
    shown: tuple[str, ...]
    exit_code: int


@dataclass(frozen=True)
class Printed:
    """What a command printed, both streams, and its exit code."""

    lines: tuple[str, ...]
    exit_code: int


def read_commands(page: str) -> list[Command]:
    """Return the commands of a page's console blocks, in order."""
    commands = []
    for block in _BLOCK.findall(page):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            text, *shown = part.rstrip("\n").split("\n")
            code = re.search(r"# exits with (\d+)$", text)
            commands.append(Command(text, tuple(shown), int(code[1]) if code else 0))
    return commands


def run_commands(commands: list[Command], folder: Path) -> list[Printed]:
    """Run all commands in one shell in `folder`; what it leaves in the background is stopped."""
    lines = []
    for command in commands:
        text = command.text.replace("CASES", str(CASES))
        lines += [text, f'code=$?; echo; echo "{_MARK}$code"']
    script = "trap 'kill $(jobs -p) 2>/dev/null' EXIT\n" + "\n".join(lines)
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "TRILLIUM_CACHE": os.environ.get("TRILLIUM_CACHE", str(Path.home() / ".cache/trillium")),
        "LANG": "C.UTF-8",
        "COLUMNS": "100",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    found, lines = [], []
    output = done.stdout.replace(f"{ROOT}/", "").replace(f"{folder}/", "")
    for line in output.split("\n"):
        if line.startswith(_MARK):
            found.append(Printed(tuple(_trim(lines)), int(line.removeprefix(_MARK))))
            lines = []
        else:
            lines.append(line.rsplit("\r", 1)[-1].rstrip())
    return found


def differences(command: Command, printed: Printed) -> list[str]:
    """Return what a reader of the page would see otherwise."""
    if printed.exit_code != command.exit_code:
        tail = "\n  ".join(printed.lines[-8:])
        return [f"$ {command.text}: exit code {printed.exit_code}\n  {tail}"]
    missing = [
        line
        for line in command.shown
        if line != "..." and not any(_is_shown(line, found) for found in printed.lines)
    ]
    return [f"$ {command.text}: does not print: {line}" for line in missing]


def write_outputs(page: str, printed: list[Printed]) -> str:
    """Return the page with real output; a block that a hand shortened keeps its lines."""
    outputs = iter(printed)

    def fill(block: re.Match[str]) -> str:
        parts = []
        for command in read_commands(block[0]):
            lines = [_shorten(line, command.shown) for line in next(outputs).lines]
            if "..." in command.shown and len(command.shown) > 1:
                lines = list(command.shown)
            elif len(lines) > _N_SHOWN:
                lines = [*lines[: _N_SHOWN // 2], "...", *lines[-_N_SHOWN // 2 :]]
            parts += [f"$ {command.text}", *lines]
        return "```console\n" + "\n".join(parts) + "\n```"

    return _BLOCK.sub(fill, page)


def _is_shown(shown: str, line: str) -> bool:
    parts = [re.escape(_mask(part)) for part in shown.split("...")]
    return re.fullmatch(".*".join(parts), _mask(line)) is not None


def _shorten(line: str, shown: tuple[str, ...]) -> str:
    """Return the line of a page that stands for a printed one, where a hand shortened it."""
    short = (each for each in shown if "..." in each.strip(".") and _is_shown(each, line))
    return next(short, line)


def _mask(line: str) -> str:
    """Replace numbers and collapse space and rules, which follow from their width."""
    line = re.sub(r"[0-9a-f]{12,}", "#", line)
    line = re.sub(r"[+-]?\d[\d,.]*(e[+-]?\d+)?", "#", line)
    return re.sub(r"([\s─━═]|[-]{2,})+", " ", line).strip()


def _trim(lines: list[str]) -> list[str]:
    while lines and not lines[-1]:
        lines.pop()
    while lines and not lines[0]:
        lines.pop(0)
    return lines


def main() -> None:
    """Run pages; with --write, put their outputs into them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    problems = []
    for path in chosen.pages or sorted(PAGES.rglob("*.md")):
        page = path.read_text()
        with tempfile.TemporaryDirectory(prefix="docs-") as folder:
            printed = run_commands(read_commands(page), Path(folder))
        if chosen.write:
            path.write_text(write_outputs(page, printed))
        for command, found in zip(read_commands(page), printed, strict=True):
            problems += [f"{path.name}: {problem}" for problem in differences(command, found)]
    print("\n".join(problems))
    raise SystemExit(bool(problems) and not chosen.write)


if __name__ == "__main__":
    main()
