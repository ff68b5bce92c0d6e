import json

import pytest
from trillium.errors import DataError
from trillium_math.grading.pairs_file import grade_pairs, read_pairs
from typer.testing import CliRunner


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


ROWS = (
    {"id": 1, "kind": "answer", "gold": "1/2", "prediction": "0.5"},
    {"id": "b", "kind": "response", "gold": "3", "prediction": "#### 4"},
    {"id": "c", "kind": "response", "gold": "3", "prediction": "\ud800"},
)


def test_pairs_are_graded_in_order(tmp_path):
    assert list(grade_pairs(read_pairs(write(tmp_path / "pairs.jsonl", *ROWS)))) == [
        {"id": 1, "correct": True, "extracted": "0.5"},
        {"id": "b", "correct": False, "extracted": "4"},
        {"id": "c", "correct": False, "extracted": None},
    ]


def test_the_command_reads_standard_input():
    from trillium_math.cli import app

    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    result = CliRunner().invoke(app, ["grade", "-"], input=lines)
    assert result.exit_code == 0
    assert [json.loads(line)["correct"] for line in result.stdout.splitlines()] == [
        True,
        False,
        False,
    ]


def test_every_bad_row_is_named_with_file_and_line(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        json.dumps(ROWS[0])
        + '\n{"id": 2, "kind": "guess", "gold": "1", "prediction": "1"}\n'
        + '{"kind": "answer", "gold": "1", "prediction": "1"}\n'
        + '{"id": 4, "kind": "answer", "gold": " ", "prediction": "1"}\n'
        + '{"id": 5, "kind": "answer", "gold": "1", "prediction": 1}\nnope\n[]\n'
    )
    with pytest.raises(DataError) as caught:
        read_pairs(str(path))
    message = str(caught.value)
    assert f'{path}:2: field "kind" is "guess" (needs answer or response)' in message
    assert f'{path}:3: field "id" is missing' in message
    assert f'{path}:4: field "gold" is empty' in message
    assert f'{path}:5: field "prediction" is 1 (needs text)' in message
    assert f"{path}:6: is no JSON" in message
    assert f"{path}:7: is no JSON object" in message


def test_disagreements_with_math_verify_are_logged_and_do_not_count(tmp_path):
    pytest.importorskip("math_verify", reason="the extra math-extras is not installed")
    rows = (
        {"id": "agreed", "kind": "answer", "gold": "2", "prediction": "\\frac{4}{2}"},
        {"id": "mixed", "kind": "answer", "gold": "31/4", "prediction": "7 3/4"},
    )
    pairs = read_pairs(write(tmp_path / "pairs.jsonl", *rows))
    verdicts = list(grade_pairs(pairs, disagreements=tmp_path / "log.jsonl"))
    assert [verdict["correct"] for verdict in verdicts] == [True, True]
    (noted,) = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert (noted["id"], noted["correct"], noted["math_verify"]) == ("mixed", True, False)
