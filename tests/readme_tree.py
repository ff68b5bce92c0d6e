"""Print the tree of the repository for the README: every file with the first line of its docstring.

python tests/readme_tree.py            print it
python tests/readme_tree.py --write    put it between the markers of README.md
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
START, END = "<!-- tree: python tests/readme_tree.py --write -->", "<!-- end of tree -->"
FOLDERS = ("core", "sandboxes", "apps", "deploy", "tests")
OTHER = {
    "Makefile": "demo, test, check, bench: everything a user or a contributor runs",
    "constraints.txt": "the versions everything is tested with",
    "pyproject.toml": "one distribution, five import roots, extras, settings of the checks",
}


def describe(path: Path) -> str:
    """Return what a file is for, in one line: its docstring, its first comment, or a fixed text."""
    if path.name in OTHER:
        return OTHER[path.name]
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        return text.split("\n", 1)[0].rstrip(".")
    if path.name == "Dockerfile" or path.suffix in {".yaml", ".sh", ".j2"}:
        for line in path.read_text(encoding="utf-8").splitlines():
            if re.match(r"(# |\{#)", line):
                return line.strip("{}# ").rstrip(".")
    return ""


def tree(root: Path = ROOT) -> str:
    """Return the tree as text; test modules and data files are listed by their folder only."""
    listed = subprocess.run(
        ["git", "ls-files", *FOLDERS], cwd=root, capture_output=True, text=True, check=True
    )
    lines = [
        f"{name:<44}{OTHER[name]}" for name in ("pyproject.toml", "constraints.txt", "Makefile")
    ]
    previous: tuple[str, ...] = ()
    for name in sorted(listed.stdout.split(), key=lambda name: Path(name).parts):
        path = Path(name)
        parents = path.parts[:-1]
        if not _is_listed(path):
            continue
        for depth in range(len(parents)):
            if previous[: depth + 1] != parents[: depth + 1]:
                lines.append("  " * depth + parents[depth] + "/")
        previous = parents
        label = "  " * len(parents) + path.name
        lines.append(f"{label:<44}{describe(root / path)}".rstrip())
    return "\n".join(lines)


def _is_listed(path: Path) -> bool:
    if path.name in {"__init__.py", "py.typed", "conftest.py"} or path.suffix in {
        ".json",
        ".jsonl",
    }:
        return False
    return path.parts[0] != "tests" or path.parts[1] == "benchmarks"


def block(root: Path = ROOT) -> str:
    """Return the README's block with its markers."""
    return f"{START}\n```\n{tree(root)}\n```\n{END}"


def main() -> None:
    """Print the tree, or write it into the README."""
    if "--write" not in sys.argv[1:]:
        sys.stdout.write(tree() + "\n")
        return
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    pattern = re.escape(START) + ".*?" + re.escape(END)
    readme.write_text(re.sub(pattern, lambda _: block(), text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
