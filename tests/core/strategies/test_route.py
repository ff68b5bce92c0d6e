"""Routing of pairs to people: features and gains with known values, and the command."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from trillium.cli import app
from trillium.records import PairRow
from trillium.rowfiles import load_rows
from trillium.strategies.gains import choose, doubt, fit_errors, fit_performance, predict_errors
from trillium.strategies.judging import Opinion
from trillium.strategies.pair_features import BIN_NAMES, bin_features, measure_pair, rouge_l
from typer.testing import CliRunner

_spec = importlib.util.spec_from_file_location(
    "routing_benchmark", Path(__file__).parents[2] / "benchmarks" / "routing.py"
)
benchmark = importlib.util.module_from_spec(_spec)
sys.modules["routing_benchmark"] = benchmark
_spec.loader.exec_module(benchmark)


def pair(id, chosen, rejected, **further):
    return {"id": id, "prompt": "Say it.", "chosen": chosen, "rejected": rejected, **further}


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["data", "route", *map(str, arguments)])


def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence():
    reference = ["police", "killed", "the", "gunman"]
    # 3 of 4 words in order, then 2 of 4: the examples of Lin 2004
    assert rouge_l(reference, ["police", "kill", "the", "gunman"]) == 0.75
    assert rouge_l(reference, ["the", "gunman", "kill", "police"]) == 0.5
    assert rouge_l([], []) == 1.0
    assert rouge_l(["a"], []) == 0.0


def test_each_pair_is_in_one_bin_of_each_feature_and_lengths_are_ranked():
    texts = [("a b", "a b"), ("a b c", "x"), ("a b c d e f", "x y z w"), ("Ask Ada 3", "Ask Bob 3")]
    rows = [PairRow(prompt="p", chosen=one, rejected=other) for one, other in texts]
    measures = np.array([measure_pair(row) for row in rows])
    bins = bin_features(measures, measures)
    assert bins.shape == (4, len(BIN_NAMES))
    assert bins.sum(1).tolist() == [7.0] * 4
    column = BIN_NAMES.index("rouge_l/high")
    assert bins[:, column].tolist() == [1.0, 0.0, 0.0, 1.0]
    assert bins[2, BIN_NAMES.index("longer_length/high")] == 1.0
    # All prompts have one length, so all have the middle rank.
    assert bins[:, BIN_NAMES.index("prompt_length/middle")].tolist() == [1.0] * 4
    # Ada, 3 and Bob, 3: one of three is in both; the first word of a text is no name.
    assert measures[3, 2] == pytest.approx(1 / 3)


def test_fitted_errors_have_the_base_rate_as_their_mean_and_find_the_feature():
    draw = np.random.default_rng(0)
    features = np.eye(3)[draw.integers(0, 3, 600)]
    is_wrong = draw.random(600) < np.where(features[:, 1] == 1, 0.6, 0.1)
    weights = fit_errors(features, is_wrong.tolist())
    chance = predict_errors(features, weights)
    # The intercept is as good as free, so the fit reproduces the number of errors.
    assert chance.mean() == pytest.approx(is_wrong.mean(), abs=1e-6)
    assert chance[features[:, 1] == 1].min() > 2 * chance[features[:, 1] == 0].max()


def test_performance_that_one_feature_decides_gives_that_feature_its_weight():
    draw = np.random.default_rng(1)
    features = np.eye(2)[draw.integers(0, 2, 50)]
    is_human = draw.random((200, 50)) < draw.random((200, 1))
    results = 0.5 + 0.01 * (is_human @ features)[:, 1]
    weights = fit_performance(features, is_human, results.tolist())
    # The counts of both kinds rise together; the ridge shares a little of it.
    assert weights[1] == pytest.approx(0.01, rel=0.1)
    assert abs(weights[0]) < 0.001


def test_judges_who_split_come_before_those_who_hesitate_and_before_those_who_agree():
    def says(first, second):
        return Opinion((first, second), "")

    sure = [(says(9, 2), says(2, 9))] * 2
    hesitant = [(says(6, 5), says(5, 6))] * 2
    split = [(says(9, 2), says(2, 9)), (says(2, 9), says(9, 2))]
    placed = [(says(9, 2), says(9, 2))] * 2
    silent = [(Opinion(None, "?"), Opinion(None, "?"))]
    order = [sure, hesitant, split, silent]
    values = [doubt(each) for each in order]
    assert values == sorted(values)
    assert doubt(placed) == doubt(split) == 2.0
    assert doubt(sure) == pytest.approx(2 - 1 - 0.7)


def test_a_budget_takes_the_largest_gains_and_draws_among_equal_ones():
    assert choose([0.1, 0.9, 0.5], 2, seed=0).tolist() == [False, True, True]
    assert choose([0.1, 0.2], 9, seed=0).all()
    taken = {int(np.flatnonzero(choose([1.0] * 5, 1, seed=seed))[0]) for seed in range(40)}
    assert taken == {0, 1, 2, 3, 4}


def test_routing_beats_random_where_the_truth_is_known():
    found = benchmark.compare(0, 400)
    for method in ("doubt", "errors"):
        for share in map(str, benchmark.SHARES):
            assert found[method][share] > found["random"][share] + 0.01
            assert found[method][share] <= found["best possible"][share]


def longer_is_better(question, seed):
    first, second = question.split("[Response A]\n")[1].split("\n\n[Response B]\n")
    second = second.split("\n")[0]
    difference = len(first) - len(second)
    return f"A: {min(9, max(1, 5 + difference))} B: {min(9, max(1, 5 - difference))}"


PAIRS = [
    pair("clear", "a much longer reply", "short", chosen_score=2, rejected_score=1),
    pair("narrow", "replies", "reply", chosen_score=4, rejected_score=3),
    pair("even", "same", "size", chosen_score=6, rejected_score=5),
]


def test_doubtful_pairs_become_tasks_and_what_people_say_comes_back(tmp_path, serving):
    source, output = write(tmp_path / "pairs.jsonl", PAIRS), tmp_path / "out.jsonl"
    tasks = tmp_path / "out.tasks.jsonl"
    with serving(longer_is_better) as server:
        command = [source, "--output", output, "--budget", 2, "--by", server.who]
        done = run(*command)
        assert done.exit_code == 0, done.output
        assert "3 pairs: 2 go to people" in done.output
        asked = [json.loads(line) for line in tasks.read_text().splitlines()]
        assert [task["id"] for task in asked] == ["narrow", "even"]
        assert all(set(task) == {"id", "prompt", "a", "b"} for task in asked)
        rows = {row.id: row for row in load_rows(output, PairRow)}
        assert {id: row.columns["source_human"] for id, row in rows.items()} == {
            "clear": 0.0,
            "narrow": 1.0,
            "even": 1.0,
        }
        n_asked = len(server.requests)
        # A person prefers the shorter one, and sees no difference in the other task.
        side = "a" if asked[0]["a"] == "reply" else "b"
        said = [{"id": "narrow", "preferred": side}, {"id": "even", "preferred": "tie"}]
        answers = write(tmp_path / "answers.jsonl", said)
        done = run(*command, "--answers", answers)
    assert done.exit_code == 0, done.output
    assert len(server.requests) == n_asked
    assert "2 have their label, 1 turned, 1 ties left out" in done.output
    rows = {row.id: row for row in load_rows(output, PairRow)}
    assert set(rows) == {"clear", "narrow"}
    assert (rows["narrow"].chosen, rows["narrow"].rejected) == ("reply", "replies")
    assert rows["narrow"].labels["score"] == (3.0, 4.0)
    assert tasks.read_text() == ""


def test_tasks_do_not_show_the_models_side_by_its_place(tmp_path, serving):
    pairs = [pair(str(n), "aa", "bb") for n in range(60)]
    source, output = write(tmp_path / "pairs.jsonl", pairs), tmp_path / "out.jsonl"
    with serving(longer_is_better) as server:
        run(source, "--output", output, "--budget", 60, "--by", server.who)
    lines = (tmp_path / "out.tasks.jsonl").read_text().splitlines()
    n_first = sum(json.loads(line)["a"] == "aa" for line in lines)
    assert 15 < n_first < 45


def test_a_pilot_with_known_truth_prints_what_random_routing_would_give(tmp_path):
    case = benchmark.make_case(3, 300)
    source = write(tmp_path / "pairs.jsonl", [row.to_record() for row in case.rows])
    sides = ["rejected" if wrong else "chosen" for wrong in case.is_wrong]
    every = [{"id": str(n), "preferred": side} for n, side in enumerate(sides)]
    truth = write(tmp_path / "truth.jsonl", every)
    pilot = write(tmp_path / "pilot.jsonl", every[:100])
    output = tmp_path / "out.parquet"
    done = run(*(source, "--output", output, "--budget", 60, "--pilot", pilot, "--truth", truth))
    assert done.exit_code == 0, done.output
    assert "right labels: model alone" in done.output
    # The pilot costs nothing of the budget and says nothing about it.
    assert "60 of 200 to people by this routing" in done.output
    rows = load_rows(output, PairRow)
    assert sum(row.columns["source_human"] for row in rows) == 160
    tasks = (tmp_path / "out.tasks.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"] for line in tasks}.isdisjoint(map(str, range(100)))


@pytest.mark.parametrize(
    ("options", "records", "says"),
    [
        ([], [], "route: needs one source of gains"),
        (["--by", "http://x/v1#m", "--pilot", "FILE"], [], "route: needs one source of gains"),
        (["--by", "http://127.0.0.1:1/v1"], [], "names no model"),
        (["--pilot", "NONE"], [], "there is no such file"),
        (["--pilot", "FILE"], [{"id": "other", "preferred": "a"}], "FILE:1: id 'other' is of no"),
        (["--pilot", "FILE"], [{"id": "even", "preferred": "c"}], "field 'preferred' is 'c'"),
        (
            ["--pilot", "FILE"],
            [{"id": "even", "preferred": "chosen"}],
            "pilot: 1 pairs of the",
        ),
        (["--mixtures", "FILE"], [{"human": ["even"]}], "FILE:1: is no mixture"),
        (
            ["--mixtures", "FILE"],
            [{"human": ["even"], "performance": value} for value in (0.5, float("nan"))],
            "FILE:2: is no mixture",
        ),
        (["--mixtures", "FILE"], [{"human": ["even"], "performance": True}], "is no mixture"),
        (["--mixtures", "FILE"], [{"human": ["even"], "performance": 1}], "has 1 mixtures"),
        (["--pilot", "FILE"], [[1]], "FILE:1: is no object"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path, options, records, says):
    source, file = write(tmp_path / "pairs.jsonl", PAIRS), write(tmp_path / "FILE", records)
    places = {"FILE": file, "NONE": tmp_path / "none.jsonl"}
    options = [places.get(option, option) for option in options]
    done = run(source, "--output", tmp_path / "out.jsonl", "--budget", 1, *options)
    assert done.exit_code == 2
    assert says in done.output
    assert not (tmp_path / "out.jsonl").exists()


def test_pairs_of_one_id_are_refused_before_anybody_is_asked(tmp_path):
    source = write(tmp_path / "pairs.jsonl", [*PAIRS, PAIRS[0] | {"chosen": "another"}])
    done = run(source, "--output", tmp_path / "out.jsonl", "--budget", 1, "--by", "http://x/v1#m")
    assert done.exit_code == 2
    assert f"id {PAIRS[0]['id']!r} is that of" in done.output
    assert not list(tmp_path.glob("out*"))


def test_mixtures_send_people_the_kind_of_pair_that_raised_the_result(tmp_path):
    pairs = [pair(str(n), "word " * (40 if n % 4 == 0 else 4), "word " * 3) for n in range(40)]
    source, output = write(tmp_path / "pairs.jsonl", pairs), tmp_path / "out.jsonl"
    chance = np.random.default_rng(0)
    mixtures = []
    for _ in range(80):
        human = [n for n in range(40) if chance.random() < 0.5]
        n_long = sum(n % 4 == 0 for n in human)
        mixtures.append({"human": [str(n) for n in human], "performance": 0.6 + 0.02 * n_long})
    file = write(tmp_path / "mixtures.jsonl", mixtures)
    done = run(source, "--output", output, "--budget", 10, "--mixtures", file)
    assert done.exit_code == 0, done.output
    rows = load_rows(output, PairRow)
    routed = {row.id for row in rows if row.columns["source_human"]}
    assert routed == {str(n) for n in range(0, 40, 4)}
