"""What people said about pairs: which text a letter means, and which files are read."""

import json

import pytest
from trillium.cli import app
from trillium.records import PairRow
from trillium.rowfiles import load_rows
from typer.testing import CliRunner

PAIRS = [
    {"id": "clear", "prompt": "p", "chosen": "a much longer reply", "rejected": "short"},
    {"id": "narrow", "prompt": "p", "chosen": "replies", "rejected": "reply"},
    {"id": "even", "prompt": "p", "chosen": "same", "rejected": "size"},
]


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["data", "route", *map(str, arguments)])


def letters(tmp_path, source, output, answers, *options):
    """Route by mixtures, with what people said; return each row's chosen response."""
    mixtures = [{"human": [id], "performance": 0.5} for id in ("clear", "even")]
    file = write(tmp_path / "mixtures.jsonl", mixtures)
    command = [source, "--output", output, "--budget", 3, "--mixtures", file]
    done = run(*command, "--answers", write(tmp_path / "answers.jsonl", answers), *options)
    rows = load_rows(output, PairRow) if output.exists() else []
    return done, {row.id: row.chosen for row in rows}


@pytest.mark.parametrize("keeps_texts", [True, False])
def test_a_letter_means_its_text_whatever_the_seed_and_the_sides_of_the_file(tmp_path, keeps_texts):
    source, output = write(tmp_path / "pairs.jsonl", PAIRS), tmp_path / "out.jsonl"
    letters(tmp_path, source, output, [], "--seed", 1)
    tasks = [json.loads(line) for line in (tmp_path / "out.tasks.jsonl").read_text().splitlines()]
    assert [task["id"] for task in tasks] == ["clear", "narrow", "even"]
    kept = [{**task, "preferred": "a"} for task in tasks]
    if not keeps_texts:
        kept = [{"id": task["id"], "preferred": "a"} for task in tasks]
    wanted = {task["id"]: task["a"] for task in tasks}
    assert wanted != {record["id"]: record["chosen"] for record in PAIRS}
    for start, seed in ((source, 0), (source, 1), (output, 1), (output, 2)):
        done, chosen = letters(tmp_path, start, output, kept, "--seed", seed)
        assert done.exit_code == 0, done.output
        assert chosen == wanted


def test_an_answer_that_holds_other_texts_than_the_pair_is_refused(tmp_path):
    source, output = write(tmp_path / "pairs.jsonl", PAIRS), tmp_path / "out.jsonl"
    swapped = [{"id": "narrow", "a": "reply", "b": "replies", "preferred": "a"}]
    for sides in (swapped, [{**swapped[0], "a": "replies", "b": "reply", "preferred": "b"}]):
        assert letters(tmp_path, source, output, sides)[1]["narrow"] == "reply"
    output.unlink()
    done, _ = letters(tmp_path, source, output, [{**swapped[0], "b": "an older reply"}])
    assert done.exit_code == 2
    assert "answers.jsonl:1: fields 'a' and 'b' are not the responses of 'narrow'" in done.output
    assert not output.exists()


def test_what_people_said_is_read_with_blank_lines_and_a_byte_order_mark(tmp_path):
    source, output = write(tmp_path / "pairs.jsonl", PAIRS), tmp_path / "out.jsonl"
    said = '\ufeff{"id": "narrow", "preferred": "rejected"}\n\n{"id": "even", "preferred": "x"}\n'
    mixtures = [{"human": [id], "performance": 0.5} for id in ("clear", "even")]
    file, answers = write(tmp_path / "mixtures.jsonl", mixtures), tmp_path / "answers.jsonl"
    command = [source, "--output", output, "--budget", 1, "--mixtures", file, "--answers", answers]
    answers.write_text(said)
    assert "answers.jsonl:3: field 'preferred' is 'x'" in run(*command).output
    answers.write_text(said.replace("x", "tie"))
    assert "2 have their label, 1 turned, 1 ties left out" in run(*command).output
