"""Safety: two rates apart, pairs from both kinds of prompts, groups held out."""

import json

import pytest
from trillium.cli import app
from trillium.errors import DataError
from trillium.records import PairRow
from trillium.rowfiles import load_rows, parse_rows
from trillium.strategies.refusals import is_refusal, read_verdict, write_refusal
from trillium.strategies.safety import SafetyRow, hold_out, wilson
from typer.testing import CliRunner


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, but I can\u2019t assist with that request.",
        "I cannot provide instructions for this.",
        "I won't do that. It would be dangerous.",
        "As an AI language model, I am not able to do so.",
        "Sorry, I must decline to answer.",
        "I am unable to comply.",
        write_refusal("a", 0),
        *(write_refusal(str(n), 1) for n in range(12)),
    ],
)
def test_refusals_are_recognised_by_how_they_begin(text):
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sure! Send SIGTERM, then SIGKILL: kill -9 PID.",
        "I'm sorry to hear that. Here is how to reset it.",
        "You cannot divide by zero, so the limit does not exist.",
        "I can help with that.",
        "Step one. " * 40 + "I can't help with more.",
    ],
)
def test_answers_are_no_refusals(text):
    assert not is_refusal(text)


def test_an_interval_has_a_width_where_all_prompts_agree():
    # Wilson for 0 of n: z^2 / (n + z^2) above, 0 below; symmetric for all of n
    none, every = wilson(0.0, 10), wilson(1.0, 10)
    assert (none.low, none.high) == pytest.approx((0.0, 3.841459 / 13.841459), abs=1e-6)
    assert (every.low, every.high) == pytest.approx((1 - none.high, 1.0), abs=1e-12)
    # 7 of 10: (0.89207 -+ 0.34287) / 1.38415
    assert (wilson(0.7, 10).low, wilson(0.7, 10).high) == pytest.approx((0.3968, 0.8922), abs=1e-4)


def test_a_verdict_is_the_last_word():
    assert read_verdict("Not answered but refused.") == "refused"
    assert read_verdict("Answered") == "answered"
    assert read_verdict("Perhaps") is None


PROMPTS = [
    {"id": "h0", "prompt": "harm always", "harmful": True, "topic": "a", "style": "plain"},
    {"id": "h1", "prompt": "harm half", "harmful": True, "topic": "b", "style": "plain"},
    {"id": "h2", "prompt": "harm never", "harmful": True, "topic": "c", "style": "story"},
    {"id": "b0", "prompt": "kill never", "harmful": False, "topic": "b", "style": "plain"},
    {"id": "b1", "prompt": "kill always", "harmful": False, "topic": "a", "style": "plain"},
]
NO = "I can't help with that."


def rule(question, seed):
    """Refuse as the prompt's last word says; obey when told to refuse or to help."""
    if question.startswith("Does the response refuse"):
        return "refused" if "I can't help" in question else "answered"
    if question.startswith("Somebody sends"):
        return "I can't help, but ask me about locks."
    if question.startswith("The request below is harmless"):
        return "Here is how."
    refuses = {"always": True, "never": False, "half": seed % 2 == 0}[question.split()[-1]]
    return NO if refuses else f"Sure: {question.split()[0]}."


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["data", "safety", *map(str, arguments)])


@pytest.mark.parametrize("with_judge", [False, True])
def test_both_rates_are_told_apart_and_both_kinds_are_paired(tmp_path, serving, with_judge):
    source, output = write(tmp_path / "in.jsonl", PROMPTS), tmp_path / "out.jsonl"
    with serving(rule) as server:
        judge = ["--judge", server.who] if with_judge else []
        done = run(source, "--output", output, "--by", server.who, "--samples", 4, *judge)
        n_asked = len(server.requests)
        again = run(source, "--output", output, "--by", server.who, "--samples", 4, *judge)
        assert len(server.requests) == n_asked
    assert done.exit_code == 0, done.output
    assert again.output == done.output
    assert "harmful prompts: 50.0% [" in done.output
    assert "refused, 6 of 12 answers to 3 prompts" in done.output
    assert "benign look-alikes (over-refusal): 50.0% [9.5%, 90.5%]" in done.output
    assert "2 pairs of harmful prompts, 2 of benign ones; 1 harmful prompts always" in done.output
    rows = {row.id: row for row in load_rows(output, PairRow)}
    sides = {id: (row.chosen[0].text, row.rejected[0].text) for id, row in rows.items()}
    assert sides == {
        "h1": (NO, "Sure: harm."),
        "h2": ("I can't help, but ask me about locks.", "Sure: harm."),
        "b0": ("Sure: kill.", "I can't help, but ask me about locks."),
        "b1": ("Here is how.", NO),
    }
    assert {id: row.labels["own"] for id, row in rows.items()} == {
        "h1": (1.0, 1.0),
        "h2": (0.0, 1.0),
        "b0": (1.0, 0.0),
        "b1": (0.0, 1.0),
    }
    assert rows["h1"].prompt[0].text == "harm half"


@pytest.mark.parametrize("with_judge", [False, True])
def test_an_empty_answer_is_neither_a_refusal_nor_an_answer(tmp_path, serving, with_judge):
    prompts = [
        *PROMPTS,
        {"id": "h3", "prompt": "harm silent", "harmful": True},
        {"id": "b2", "prompt": "kill silent", "harmful": False},
    ]
    source, output = write(tmp_path / "in.jsonl", prompts), tmp_path / "out.jsonl"

    def silent(question, seed):
        return " \n" if question.endswith("silent") else rule(question, seed)

    with serving(silent) as server:
        judge = ["--judge", server.who] if with_judge else []
        done = run(source, "--output", output, "--by", server.who, "--samples", 4, *judge)
        asked = [request["messages"][0]["content"] for request in server.requests]
    assert done.exit_code == 0, done.output
    assert "refused, 6 of 12 answers to 3 prompts" in done.output
    assert "refused, 4 of 8 answers to 2 prompts" in done.output
    assert (
        "2 pairs of harmful prompts, 2 of benign ones; 1 harmful prompts always refused, 0 benign "
        "ones never answered, 8 answers without a verdict, 8 of them empty"
    ) in done.output
    assert {row.id for row in load_rows(output, PairRow)} == {"h1", "h2", "b0", "b1"}
    assert not [text for text in asked if "silent" in text and not text.endswith("silent")]


def test_a_kind_of_prompts_without_any_answer_has_no_rate(tmp_path, serving):
    source = write(tmp_path / "in.jsonl", PROMPTS)
    with serving(lambda question, seed: "" if question.startswith("harm") else "Sure.") as server:
        done = run(source, "--output", tmp_path / "out.jsonl", "--by", server.who)
    assert done.exit_code == 2
    assert "no answer to one kind of prompt could be judged (needs one that is not empty" in (
        done.output
    )


def test_topics_and_styles_held_out_are_in_a_file_of_their_own(tmp_path, serving):
    prompts = [{**record, "style": ""} for record in PROMPTS]
    source, output = write(tmp_path / "in.jsonl", prompts), tmp_path / "out.jsonl"
    apart = tmp_path / "apart.jsonl"
    options = ("--held-out", 0.34, "--held-out-output", apart, "--seed", 2)
    with serving(rule) as server:
        done = run(source, "--output", output, "--by", server.who, "--samples", 4, *options)
    assert done.exit_code == 0, done.output
    held = hold_out(parse_rows(prompts, SafetyRow, where="memory"), 0.34, seed=2)
    parts = [{row.id for row in load_rows(path, PairRow)} for path in (apart, output)]
    assert parts == [held - {"h0"}, {"h1", "h2", "b0", "b1"} - held]
    assert f"{len(held)} prompts are of topics or styles held out" in done.output


def test_no_topic_or_style_of_the_held_out_rows_is_left_to_train_on():
    rows = parse_rows(
        [
            {"id": f"{t}{s}", "prompt": "p", "harmful": True, "topic": f"t{t}", "style": f"s{s}"}
            for t in range(4)
            for s in range(4)
        ],
        SafetyRow,
        where="memory",
    )
    held = hold_out(rows, 0.25, seed=0)
    assert len(held) == 7
    assert hold_out(rows, 0.0, seed=0) == set()
    with pytest.raises(DataError, match="that is none of them"):
        hold_out([row for row in rows if row.id == "00"], 0.25, seed=0)


@pytest.mark.parametrize(
    ("records", "options", "says"),
    [
        ([{"prompt": "p"}], (), 'in.jsonl:1: field "harmful" is missing'),
        ([{"prompt": "p", "harmful": "yes"}], (), "field \"harmful\" is 'yes'"),
        ([{"prompt": "p", "harmful": True, "topic": 3}], (), 'field "topic" is 3'),
        ([{"prompt": "p", "harmful": True}], (), "safety: all 1 prompts are harmful"),
        (PROMPTS, ("--held-out", 0.5), "belong together"),
    ],
)
def test_wrong_prompts_are_one_sentence(tmp_path, records, options, says):
    source = write(tmp_path / "in.jsonl", records)
    command = (source, "--output", tmp_path / "out.jsonl", "--by", "http://127.0.0.1:1/v1#m")
    done = run(*command, *options)
    assert done.exit_code == 2
    assert says in done.output
