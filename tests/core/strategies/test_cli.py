"""What the commands of `trillium data` leave on disk."""

import json

from trillium.cli import app
from typer.testing import CliRunner


def write_pairs(path, n_users=6):
    rows = [
        {"prompt": f"q{n}", "chosen": f"a{n}", "rejected": f"b{n}", "user": f"u{n % n_users}"}
        for n in range(2 * n_users)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prompts(path):
    return {json.loads(line)["chosen"] for line in path.read_text().splitlines()}


def call(*words):
    done = CliRunner().invoke(app, ["data", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done.output


def test_no_row_of_an_earlier_call_stays_held_out(tmp_path):
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    train, held_out = tmp_path / "train.jsonl", tmp_path / "held_out.jsonl"
    words = ["personalise", pairs, "--output", train, "--held-out-output", held_out]
    call(*words, "--examples", 1, "--held-out", 0.5)
    assert len(prompts(train)) == len(prompts(held_out)) == 6
    said = call(*words, "--examples", 1, "--held-out", 0)
    assert "12 rows to train on, 0 of other users" in said
    assert len(prompts(train)) == 12
    assert not held_out.exists()


def test_pairs_that_judges_no_longer_tell_apart_do_not_stay(tmp_path, serving):
    pairs = write_pairs(tmp_path / "pairs.jsonl", n_users=1)
    output = tmp_path / "judged.jsonl"
    output.write_text("yesterday's")
    before = pairs.read_text()
    with serving(lambda question, seed: "A") as server:
        said = call("judge", pairs, "--output", output, "--by", server.who)
        assert "0 written" in said
        assert not output.exists()
        # A file judged in its own place is not lost.
        call("judge", pairs, "--output", pairs, "--by", server.who)
    assert pairs.read_text() == before
