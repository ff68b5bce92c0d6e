import json
import re

import pytest
from trillium.config import load_config
from trillium.errors import ConfigError
from trillium_code.config import CodeConfig
from trillium_code.preparation import prepare_tasks


def row(name, split, statement, **changes):
    fields = {
        "id": f"t/{name}",
        "entry_point": name,
        "signature": f"def {name}(x):",
        "statement": statement,
        "tests": [f"assert {name}(1) == 1"],
        "split": split,
    }
    return {**fields, **changes}


def prepare(folder, *rows, overrides=()):
    path = folder / "tasks.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    sources = [f"tasks.train.source={path}", f"tasks.held_out.source={path}"]
    return prepare_tasks(load_config(CodeConfig, None, [*sources, *overrides]))


ROWS = (
    row("a", "train", "Return the first thing."),
    row("b", "train", "Return the sum of all numbers in the list, please."),
    row("c", "held_out", "Return the sum of all numbers in the list."),
)


def test_a_training_task_that_repeats_a_held_out_one_is_left_out_and_named(tmp_path):
    tasks = prepare(tmp_path, *ROWS)
    assert [task.id for task in tasks.train] == ["t/a"]
    assert [task.id for task in tasks.held_out] == ["t/c"]
    assert tasks.removed == {"t/b": "t/c"}


def test_a_hidden_test_more_changes_the_hash_of_the_held_out_tasks(tmp_path):
    before = prepare(tmp_path, *ROWS)
    changed = [{**r, "tests": [*r["tests"], f"assert {r['entry_point']}(2) == 2"]} for r in ROWS]
    after = prepare(tmp_path, *changed)
    assert before.held_out_hash != after.held_out_hash


def test_held_out_tasks_without_tests_are_set_aside_and_none_with_tests_is_refused(tmp_path):
    bare = {"prompt": "def d(x):\n", "entry_point": "d", "split": "held_out"}
    tasks = prepare(tmp_path, *ROWS, bare)
    assert [task.id for task in tasks.held_out] == ["t/c"]
    assert tasks.set_aside == (f"{tmp_path / 'tasks.jsonl'}: d has no hidden tests",)
    with pytest.raises(ConfigError, match="none of 1 tasks has hidden tests, the first is d"):
        prepare(tmp_path, ROWS[0], bare)


def test_a_row_that_is_no_task_is_set_aside_with_its_line_and_the_run_goes_on(tmp_path):
    nameless = {"prompt": "def d(x):\n", "split": "train"}
    torn = row("e", "train", "Say e.", tests=["assert e(1 = 2"])
    tasks = prepare(tmp_path, *ROWS, nameless, torn)
    assert [task.id for task in tasks.train] == ["t/a"]
    first, second = tasks.set_aside
    assert first.startswith(f'{tmp_path / "tasks.jsonl"}:4: field "entry_point" is missing')
    assert ":5: " in second
    assert "does not parse" in second


def test_plus_tests_belong_to_held_out_tasks_of_the_same_id(tmp_path):
    plus = tmp_path / "plus.jsonl"
    more = row("c", "held_out", "x", tests=["assert c(1) == 1", "assert c(2) == 2"])
    plus.write_text("".join(json.dumps(r) + "\n" for r in (more, row("z", "held_out", "x"))))
    tasks = prepare(tmp_path, *ROWS, overrides=[f"tasks.plus.source={plus}"])
    assert [(task.id, len(task.tests)) for task in tasks.plus] == [("t/c", 2)]
    plus.write_text(json.dumps(row("z", "held_out", "x")) + "\n")
    with pytest.raises(ConfigError, match=r"has none of the 1 held-out tasks, the first is t/c"):
        prepare(tmp_path, *ROWS, overrides=[f"tasks.plus.source={plus}"])


def test_a_training_set_of_nothing_but_repeats_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"all 3 tasks repeat held-out tasks"):
        prepare(tmp_path, *ROWS, overrides=["tasks.train.split=all", "tasks.held_out.split=all"])


@pytest.mark.parametrize(
    ("n_shared", "sentence"),
    [
        (1, "tasks.train: id 0 is also in tasks.held_out (ids must differ); rename them"),
        (3, "tasks.train: ids 0, 1, 2 are also in tasks.held_out (ids must differ); rename them"),
        (5, "tasks.train: ids 0, 1, 2 and 2 more are also in tasks.held_out (ids must differ); "),
    ],
)
def test_different_tasks_of_the_same_id_in_both_files_are_refused(tmp_path, n_shared, sentence):
    other = tmp_path / "other.jsonl"
    rows = [row(f"x{i}", None, f"Say x{i}.", id=str(i)) for i in range(n_shared)]
    other.write_text("".join(json.dumps({**r, "split": "held_out"}) + "\n" for r in rows))
    train = [row(f"y{i}", "train", f"Say y{i}.", id=str(i)) for i in range(6)]
    with pytest.raises(ConfigError, match="^" + re.escape(sentence)):
        prepare(tmp_path, *train, overrides=[f"tasks.held_out.source={other}"])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("objective={name: modpo}", 'objective modpo needs "margin_chosen" and programs have only'),
        ("objective={name: sppo}", 'objective sppo needs "p_win_chosen" and programs have only'),
        ("objective={name: gpo}", 'objective gpo needs "score_chosen" and programs have only'),
        ("train.eval_steps=5", "train.eval_steps is set and there is nothing held out"),
    ],
)
def test_an_objective_that_pairs_of_programs_cannot_serve_is_refused(tmp_path, override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        prepare(tmp_path, *ROWS, overrides=[override])
