import pytest
from trillium.errors import ConfigError, DataError
from trillium_code.tasks import CodeTask, TaskSource, select, signature_of


def task(name, band="easy", split="train"):
    return CodeTask(name, name, f"def {name}():\n", name, band=band, split=split)


TASKS = [task("a"), task("b", "hard"), task("c", split="held_out"), task("d", "medium")]


def test_a_source_selects_by_split_band_and_position():
    names = [t.id for t in select(TASKS, TaskSource(first=1, limit=1), "train")]
    assert names == ["b"]
    chosen = select(TASKS, TaskSource(split="all", bands=("easy", "medium")), "train")
    assert [t.id for t in chosen] == ["a", "c", "d"]
    assert [t.id for t in select(TASKS, TaskSource(), "held_out")] == ["c"]


def test_a_source_without_parts_is_taken_whole():
    whole = [task("a", split=None), task("b", split=None)]
    assert select(whole, TaskSource(), "train") == whole
    assert select(whole, TaskSource(), "held_out") == whole


def test_a_selection_without_tasks_says_what_was_asked_for():
    with pytest.raises(ConfigError, match=r"none of 4 tasks is left \(split held_out, bands hard"):
        select(TASKS, TaskSource(bands=("hard",)), "held_out")


def test_the_signature_is_cut_out_of_imports_helpers_and_docstring():
    header = (
        "from typing import List\n\ndef helper(x):\n    return x\n\n"
        'def first(\n    items: List[int],\n) -> int:\n    """Return the first."""\n'
    )
    assert signature_of(header, "first") == "def first(\n    items: List[int],\n) -> int:"
    assert signature_of("def f(x):", "f") == "def f(x):"
    for before in ("import math\n\x0c\n", 'X = "a\u2028b"\n\n', "import math\r\n\r\n"):
        assert signature_of(before + "def f(x):\n", "f") == "def f(x):"


def test_a_header_without_the_function_is_refused():
    with pytest.raises(DataError, match='defines no function "g"'):
        signature_of("def f(x):\n", "g")
    with pytest.raises(DataError, match="does not parse"):
        signature_of("def f(x:\n", "f")
