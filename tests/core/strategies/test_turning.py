"""Turning a pair: what goes to the other side, what is left out, and how often that is told."""

import json

import pytest
from trillium.cli import app
from trillium.fields import Fields
from trillium.records import PairRow
from trillium.rowfiles import load_rows
from trillium.strategies.turning import ONE_SIDED, is_one_sided, turn
from typer.testing import CliRunner

RECORD = {"id": "1", "prompt": "p", "chosen": "c", "rejected": "r", "margin": 2.0, "weight": 0.5}


def pair(**further):
    return PairRow.from_record(Fields({**RECORD, **further}, PairRow.needs))


def test_what_belongs_to_a_side_turns_with_it():
    row = pair(chosen_reward=1.5, rejected_reward=-1.0, rejected_prompt="q")
    turned = turn(row)
    assert (turned.prompt, turned.chosen) == ("q", "r")
    assert (turned.rejected_prompt, turned.rejected) == ("p", "c")
    assert turned.labels == {"reward": (-1.0, 1.5)}
    assert turned.columns == {"margin": -2.0, "weight": 0.5}
    assert turn(turned) == row
    alone = turn(pair())
    assert (alone.prompt, alone.rejected_prompt) == ("p", None)


@pytest.mark.parametrize("p_win", [0.0, 0.25, 1.0])
def test_a_chance_that_chosen_wins_becomes_that_of_the_other_side(p_win):
    row = pair(p_win=p_win, reference_is_chosen=1, label_smoothing=0.25)
    turned = turn(row)
    assert turned.columns == {
        "margin": -2.0,
        "weight": 0.5,
        "p_win": 1 - p_win,
        "reference_is_chosen": 0.0,
        "label_smoothing": 0.25,
    }
    assert turn(turned) == row


def test_what_was_said_for_the_side_that_lost_is_left_out():
    row = pair(rationale="c is shorter.", rationale_prompt="why?", degree_label=2, gold="g")
    turned = turn(row)
    assert set(turned.further) == {"gold"}
    assert turned.columns == {"margin": -2.0, "weight": 0.5}
    assert set(turned.to_record()).isdisjoint({*ONE_SIDED, "rationale_prompt"})
    assert [is_one_sided(each) for each in (row, turned, pair(), pair(degree_label=0))] == [
        True,
        False,
        False,
        True,
    ]


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def run(*arguments):
    done = CliRunner().invoke(app, ["data", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


LOST = "1 turned pairs lost their rationale or degree_label"


def test_routing_and_judging_say_how_many_pairs_lost_what_was_one_sided(tmp_path, serving):
    records = [
        {**RECORD, "id": id, "rationale": "It is longer."} for id in ("kept", "turned", "tie")
    ]
    source, output = write(tmp_path / "pairs.jsonl", records), tmp_path / "out.jsonl"
    said = zip(("kept", "turned", "tie"), ("chosen", "rejected", "tie"), strict=True)
    answers = [{"id": id, "preferred": preferred} for id, preferred in said]
    people = write(tmp_path / "people.jsonl", answers)
    mixtures = [{"human": [id], "performance": 0.5} for id in ("kept", "turned")]
    file = write(tmp_path / "mixtures.jsonl", mixtures)
    options = ["--output", output, "--budget", 1, "--mixtures", file]
    assert LOST in run("route", source, *options, "--answers", people)
    found = {row.id: row.further for row in load_rows(output, PairRow)}
    assert found["turned"] == {}
    assert found["kept"]["rationale"].completion == "It is longer."
    assert "lost" not in run("route", source, *options)
    judged = [{**records[0], "prompt": "keep"}, {**records[1], "prompt": "turn"}]
    source = write(tmp_path / "judged.jsonl", judged)

    def rule(question, seed):
        first_is_chosen = "[Response A]\nc\n" in question
        better = first_is_chosen == ("keep" in question)
        return "A: 9 B: 2" if better else "A: 2 B: 9"

    with serving(rule) as server:
        assert LOST in run("judge", source, "--output", output, "--by", server.who)
    assert [row.chosen for row in load_rows(output, PairRow)] == ["c", "r"]
