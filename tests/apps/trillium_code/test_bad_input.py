"""Input that cannot be used, through the commands: one sentence, and the exit code that fits."""

import importlib.util
import json

import pytest
from trillium.cli import exit_code
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium_code.cli import app
from typer.testing import CliRunner

TASK = {
    "entry_point": "inc",
    "signature": "def inc(n):",
    "statement": "Add one.",
    "tests": ["assert inc(1) == 2"],
}
SIDES = [
    {**TASK, "id": "t/inc", "split": "train"},
    {
        "id": "t/dec",
        "split": "held_out",
        "entry_point": "dec",
        "signature": "def dec(n):",
        "statement": "Subtract one from the number.",
        "tests": ["assert dec(1) == 0"],
    },
]


@pytest.fixture
def asked(tmp_path):
    """Return what runs the application on a file of tasks, with the tiny model and overrides."""
    tiny_policy().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    run = tmp_path / "run.yaml"
    run.write_text("prompt: {program_style: completion}\n")

    def ask(rows, *overrides):
        tasks = tmp_path / "tasks.jsonl"
        tasks.write_text("".join(json.dumps(row) + "\n" for row in rows))
        given = [
            f"output={tmp_path / 'run'}",
            f"policy={{base: {tmp_path / 'model'}, dtype: float32}}",
            *(f"tasks.{side}.source={tasks}" for side in ("train", "held_out")),
            *overrides,
        ]
        return said(["run", str(run), *given])

    return ask


def said(arguments):
    """Return the sentence of a command that fails, and the code it exits with."""
    result = CliRunner().invoke(app, arguments)
    assert result.exception is not None, result.output
    return str(result.exception), exit_code(result.exception)


def test_tasks_without_an_entry_point_are_named_by_line(asked):
    rows = [{key: value for key, value in row.items() if key != "entry_point"} for row in SIDES]
    sentence, code = asked(rows)
    assert code == 2
    assert 'tasks.jsonl:1: field "entry_point"' in sentence
    assert "tasks.jsonl:2:" in sentence


def test_tests_that_do_not_parse_are_named_by_line(asked):
    sentence, code = asked([{**row, "tests": ["assert inc(1) =="]} for row in SIDES])
    assert code == 2
    assert "tasks.jsonl:1:" in sentence
    assert "parse" in sentence or "syntax" in sentence


@pytest.mark.parametrize(
    ("override", "code", "words"),
    [
        ("sandbox.min_level=5", 2, "the embedded backend reaches level 2"),
        (
            "generation={backend: server, url: http://127.0.0.1:9/v1, model: m, n_retries: 0}",
            1,
            "http://127.0.0.1:9/v1: ",
        ),
        ("ray={address: 127.0.0.1:9}", 1, "ray.address=127.0.0.1:9: no cluster answers"),
        ("generation={backend: server, url: ftp://x, model: m}", 2, "generation.url"),
        ("generation={backend: oracle}", 2, "transformers"),
        ("sandbox={backend: http, url: http://127.0.0.1:9}", 1, "no sandbox service answers there"),
    ],
)
def test_a_place_that_cannot_serve_is_one_sentence(asked, tmp_path, override, code, words):
    if override.startswith("ray") and importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed (the extra `ray`)")
    sentence, found = asked(SIDES, override)
    assert (found, words in sentence) == (code, True), sentence
    assert not list(tmp_path.rglob("samples_*"))  # nobody waited for samples to hear of it
    assert len(sentence.splitlines()) <= 2  # the file, and what is wrong with its one key


def test_a_task_that_fails_is_set_aside_and_the_run_goes_on(asked):
    broken = {**TASK, "id": "t/odd", "tests": ["assert inc("], "split": "train"}
    sentence, code = asked([*SIDES, broken], "rank.min_agreement=1000")
    assert code == 2
    assert "no pair from 1 task" in sentence  # it sampled and executed what the others allow


def test_a_matrix_with_missing_cells_names_them(tmp_path):
    (tmp_path / "matrix.csv").write_text("1,0,1\n1,,0\n")
    sentence, code = said(["rank", str(tmp_path / "matrix.csv")])
    assert code == 2
    assert "matrix.csv: row 2, column 2: is missing" in sentence


def test_a_model_without_a_chat_template_is_asked_for_no_answers(asked, tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    (tmp_path / "model" / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(tmp_path / "model")
    sentence, code = asked(SIDES, "prompt.program_style=answer")
    assert code == 2
    assert "prompt.program_style = answer: the tokenizer" in sentence
    assert "set prompt.program_style=completion" in sentence


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["prompt.repairs_signature=true"], "set program_style=answer, or remove"),
        (["prompt.program_style=answer", 'programs.stop=["\\n"]'], "programs.stop=[], or leave"),
        (["prompt.program_style=essay"], "'answer'"),
    ],
)
def test_a_prompt_that_cannot_be_read_back_is_one_sentence(asked, overrides, words):
    sentence, code = asked(SIDES, *overrides)
    assert (code, words in sentence) == (2, True), sentence
    assert len(sentence.splitlines()) == 2  # the file, and what is wrong with its one key
