"""The README shows what is there: its tree is printed from the files themselves."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def load_printer():
    """Load the script that prints the tree; tests are no package, so it cannot be imported."""
    spec = importlib.util.spec_from_file_location("readme_tree", ROOT / "tests/readme_tree.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tree_of_the_readme_is_that_of_the_repository():
    assert load_printer().block() in (ROOT / "README.md").read_text(encoding="utf-8"), (
        "run python tests/readme_tree.py --write"
    )
