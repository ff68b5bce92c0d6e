"""`trillium data` on small files, with judges whose rule is known and a tiny model."""

import json
import re

import pytest
from trillium.cli import app
from trillium.errors import ConfigError
from trillium.generation.interface import SamplingConfig
from trillium.records import PairRow
from trillium.rowfiles import load_rows, parse_rows
from trillium.strategies.answers import open_participant
from trillium.strategies.asking import LocalChat, open_asker
from trillium.strategies.jury import judge_pairs
from trillium.strategies.rationales import enrich_with_rationales
from typer.testing import CliRunner

SAMPLING = SamplingConfig(temperature=0.0, max_new_tokens=8)
RECORDS = [
    {"id": "a", "prompt": "p", "chosen": "a long reply", "rejected": "short", "user": "u"},
    {"id": "b", "prompt": "p", "chosen": "tiny", "rejected": "a longer reply", "user": "u"},
    {"id": "c", "prompt": "p", "chosen": "same", "rejected": "size", "user": "v"},
]


class ByLength:
    """A judge whose rule is known: longer is better; it counts how often it is asked."""

    def __init__(self, *, sign=1, dies_at=None):
        self.sign, self.dies_at, self.asked = sign, dies_at, []

    def answer(self, questions, sampling, *, seed):
        answers = []
        for question in questions:
            if len(self.asked) == self.dies_at:
                raise RuntimeError("killed")
            self.asked.append(question)
            first, second = re.findall(r"\[Response [AB]\]\n(.*)\n", question)
            scores = (9, 2) if self.sign * (len(first) - len(second)) > 0 else (2, 9)
            scores = (5, 5) if len(first) == len(second) else scores
            answers.append(f"A: {scores[0]} B: {scores[1]}")
        return answers


def rows():
    return parse_rows(RECORDS, PairRow, where="memory")


def write(path, records=RECORDS):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_pairs_are_turned_where_the_judge_disagrees_and_ties_are_left_out(tmp_path):
    judge = ByLength()
    found = judge_pairs(
        rows(), {"length": judge}, tmp_path / "o.jsonl", n_rounds=1, sampling=SAMPLING, seed=0
    )
    assert (found.n_same, found.n_turned, found.n_ties, found.n_unreadable) == (1, 1, 1, 0)
    assert [row.chosen for row in found.rows] == ["a long reply", "a longer reply"]
    assert found.consistent == {"length": 1.0}
    assert len(judge.asked) == 6


def test_a_judgement_that_was_cut_short_asks_nothing_twice(tmp_path):
    opinions = tmp_path / "o.jsonl"
    many = [replace_id(row, index) for index in range(10) for row in RECORDS]
    pairs = parse_rows(many, PairRow, where="memory")
    first = ByLength(dies_at=40)
    options = {"n_rounds": 1, "sampling": SAMPLING, "seed": 0}
    with pytest.raises(RuntimeError, match="killed"):
        judge_pairs(pairs, {"length": first}, opinions, **options)
    second = ByLength()
    judged = judge_pairs(pairs, {"length": second}, opinions, **options)
    # Two batches of sixteen were on disk; the third was lost with the kill.
    assert len(second.asked) == 60 - 32
    whole = judge_pairs(pairs, {"length": ByLength()}, tmp_path / "p.jsonl", **options)
    assert judged == whole


def test_another_question_sampling_or_seed_is_asked_anew(tmp_path):
    def asked(records, **changes):
        judge = ByLength()
        options = {"n_rounds": 1, "sampling": SAMPLING, "seed": 0} | changes
        pairs = parse_rows(records, PairRow, where="memory")
        found = judge_pairs(pairs, {"length": judge}, tmp_path / "o.jsonl", **options)
        return len(judge.asked), [row.chosen for row in found.rows]

    edited = [{**RECORDS[0], "chosen": "short", "rejected": "a long reply"}]
    assert asked(RECORDS[:1]) == (2, ["a long reply"])
    assert asked(edited) == (2, ["a long reply"])
    assert asked(edited, seed=1)[0] == 2
    assert asked(edited, sampling=SamplingConfig(temperature=0.5))[0] == 2
    for again in ({}, {"sampling": SAMPLING.model_copy(update={"n_samples": 2})}):
        assert asked(edited, **again) == (0, ["a long reply"])


def replace_id(record, index):
    return {**record, "id": f"{record['id']}{index}"}


def test_a_debate_tells_judges_what_the_others_said_and_needs_two(tmp_path):
    judges = {"one": ByLength(), "two": ByLength(), "odd": ByLength(sign=-1)}
    options = {"n_rounds": 2, "sampling": SAMPLING, "seed": 0}
    found = judge_pairs(rows(), judges, tmp_path / "o.jsonl", **options)
    assert (found.n_same, found.n_turned, found.n_ties) == (1, 1, 1)
    assert found.kappa["one and two"] == 1.0
    # They agree on the tie alone: p_o = p_e = 1/3.
    assert found.kappa["one and odd"] == pytest.approx(0.0, abs=1e-12)
    assert all("Another judge" in question for question in judges["one"].asked[6:])
    assert not any("Another judge" in question for question in judges["one"].asked[:6])
    with pytest.raises(ConfigError, match="a debate needs at least two judges"):
        judge_pairs(rows(), {"one": ByLength()}, tmp_path / "p.jsonl", **options)


def test_a_model_that_gives_no_scores_judges_nothing(model, tmp_path):
    found = judge_pairs(
        rows(),
        {"tiny": LocalChat(str(model))},
        tmp_path / "o.jsonl",
        n_rounds=1,
        sampling=SAMPLING,
        seed=0,
    )
    assert found.n_unreadable == 3
    assert found.rows == []


def test_rationales_are_rows_that_rationale_dpo_reads(model, tmp_path):
    pairs, output = write(tmp_path / "pairs.jsonl"), tmp_path / "out.jsonl"
    command = ["data", "rationales", str(pairs), "--output", str(output), "--by", str(model)]
    done = CliRunner().invoke(app, [*command, "--max-new-tokens", "6", "--temperature", "1"])
    assert done.exit_code == 0, done.output
    for row in load_rows(output, PairRow):
        assert row.further["rationale"].prompt == row.prompt


def test_a_rationale_belongs_to_its_question_model_sampling_and_seed(serving, tmp_path):
    def enrich(who, records, **changes):
        options = {"sampling": SAMPLING, "seed": 0} | changes
        pairs = parse_rows(records, PairRow, where="memory")
        answers = tmp_path / "answers.jsonl"
        found = enrich_with_rationales(pairs, open_participant(who), answers, **options)
        return [record["rationale"] for record in found]

    edited = [{**RECORDS[0], "chosen": "another reply"}]
    with (
        serving(lambda question, seed: f"one of {len(one.requests)}") as one,
        serving(lambda question, seed: "two") as two,
    ):
        assert enrich(one.who, RECORDS[:1]) == ["one of 1"]
        assert enrich(one.who, RECORDS[:1]) == ["one of 1"]
        assert enrich(one.who, edited) == ["one of 2"]
        assert enrich(two.who, edited) == ["two"]
        assert enrich(one.who, edited, seed=1) == ["one of 3"]
        assert enrich(one.who, edited, sampling=SamplingConfig(top_k=5)) == ["one of 4"]
        assert [request.get("top_k") for request in one.requests] == [None, None, None, 5]


def test_a_server_needs_the_name_of_its_model():
    with pytest.raises(ConfigError, match="names no model"):
        open_asker("http://127.0.0.1:1/v1")
    with pytest.raises(ConfigError, match=r"http://#m: is no URL#MODEL .* correct the address"):
        open_asker("http://#m")


def test_a_model_of_this_process_is_asked_with_all_of_the_sampling(model):
    """The likeliest token alone is left at any temperature."""
    hot = SamplingConfig(temperature=5.0, top_p=1.0, top_k=1, max_new_tokens=8)
    chat = LocalChat(str(model))
    assert chat.answer(["p", "q"], hot, seed=0) == chat.answer(["p", "q"], SAMPLING, seed=0)
