"""Attributes: what is counted, what a judge scores, and pairs by closeness to targets."""

import json

import pytest
from pydantic import TypeAdapter
from trillium.cli import app
from trillium.records import PairRow
from trillium.rowfiles import load_rows, parse_rows
from trillium.strategies.attributes import (
    Attribute,
    AttributeRow,
    name_of,
    read_score,
    soft_closeness,
)
from typer.testing import CliRunner

_ATTRIBUTE = TypeAdapter(Attribute)


def closeness(attribute, text):
    return _ATTRIBUTE.validate_python(attribute).closeness(text)


@pytest.mark.parametrize(
    ("attribute", "text", "expected"),
    [
        ({"kind": "words", "target": 4}, "one two three", 0.75),
        ({"kind": "words", "target": 4}, "one two three four five six seven eight nine", 0.0),
        ({"kind": "sentences", "target": 2}, "It is 3.5 m. It fits!", 1.0),
        ({"kind": "sentences", "target": 2}, "no end", 0.5),
        ({"kind": "paragraphs", "target": 2}, "a\n\nb\n \nc", 0.5),
        ({"kind": "keyword", "text": "the sea"}, "By The Sea, and the sea.", 1.0),
        ({"kind": "keyword", "text": "sea"}, "A season.", 0.0),
        ({"kind": "keyword", "text": "sea", "target": 2}, "sea sea sea", 0.5),
        ({"kind": "keyword", "text": "sea", "target": 0}, "A season.", 1.0),
        ({"kind": "keyword", "text": "sea", "target": 0}, "The sea.", 0.0),
        ({"kind": "keyword", "text": "c++"}, "Use C++ here", 1.0),
        ({"kind": "start", "text": "Dear"}, " Dear Ada", 1.0),
        ({"kind": "start", "text": "Dear"}, "My dear", 0.0),
        ({"kind": "casing", "target": "lower"}, "abcD 12!", 0.75),
        ({"kind": "casing", "target": "upper"}, "12", 0.0),
    ],
)
def test_hard_attributes_are_counted(attribute, text, expected):
    assert closeness(attribute, text) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("7", 7.0),
        ("7.5.", 7.5),
        ("Between 3 and 12: 8.5/10.", 8.5),
        ("2 out of 10", 2.0),
        ("I rate it 3 of 10.", 3.0),
        ("10/10", 10.0),
        ("Score (0-10): 4", 4.0),
        ("3 (on a scale from 0 to 10)", 3.0),
        ("On a scale of 1 to 10, it is 6.", 6.0),
        ("11", None),
        ("12/10", None),
        ("-2", None),
        ("-2 out of 10", None),
        ("4 because it has 2 typos", None),
        ("8/10 for tone, 3/10 for facts", None),
        ("seven", None),
    ],
)
def test_the_one_number_of_a_judge_is_the_score(answer, score):
    assert read_score(answer) == score


def test_a_score_is_as_close_as_it_is_near_the_target():
    assert soft_closeness(7.0, 4.0) == pytest.approx(0.7)


def test_names_are_fields_of_a_row():
    named = [{"kind": "soft", "text": "warm, but short"}, {"kind": "words", "target": 9}]
    names = [name_of(_ATTRIBUTE.validate_python(one)) for one in named]
    assert names == ["soft_warm_but_short", "words"]


def test_attributes_whose_names_clash_are_asked_for_and_graded_each(tmp_path, serving):
    texts = ("C++", "C#", "C", "c", "C 2", "\U0001f600", "\U0001f680")
    listed = [{"kind": "keyword", "text": text} for text in texts]
    (row,) = parse_rows([{"prompt": "p", "attributes": listed}], AttributeRow, where="memory")
    # What differs in capitals alone is one attribute: keywords are found in either.
    assert {name: each.text for name, each in row.attributes.items()} == {
        "keyword_c": "C++",
        "keyword_c_2": "C#",
        "keyword_c_3": "c",
        "keyword_c_2_2": "C 2",
        "keyword": "\U0001f600",
        "keyword_2": "\U0001f680",
    }
    again = parse_rows([row.to_record()], AttributeRow, where="memory")
    assert again == [row]
    record = {"prompt": "Compare.", "attributes": [listed[0], listed[1]]}
    source, output = write(tmp_path / "in.jsonl", [record]), tmp_path / "out.jsonl"
    with serving(lambda question, seed: "C++ and C#" if seed % 2 else "C++") as server:
        done = run(source, "--output", output, "--by", server.who, "--samples", 8)
    assert done.exit_code == 0, done.output
    (pair,) = load_rows(output, PairRow)
    assert pair.prompt[0].text.endswith('- Use "C++".\n- Use "C#".')
    assert (pair.labels["keyword_c"], pair.labels["keyword_c_2"]) == ((1.0, 1.0), (1.0, 0.0))


def rule(question, seed):
    """Write more words with every seed; a response is as polite as it is short."""
    if question.startswith("How polite"):
        response = question.split("[Response]\n")[1].split("\n\n")[0]
        return f"{max(0, 10 - len(response.split()))}"
    return " ".join(["word"] * (1 + seed % 4)) + "."


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["data", "attributes", *map(str, arguments)])


def test_the_closest_response_is_chosen_over_the_farthest(tmp_path, serving):
    soft = {"kind": "soft", "text": "polite", "target": 6}
    record = {"id": "x", "prompt": "Greet.", "attributes": [{"kind": "words", "target": 4}, soft]}
    source, output = write(tmp_path / "in.jsonl", [record]), tmp_path / "out.jsonl"
    with serving(rule) as server:
        command = [source, "--output", output, "--by", server.who, "--judge", server.who]
        done = run(*command, "--samples", 16)
        n_asked = len(server.requests)
        again = run(*command, "--samples", 16)
    assert done.exit_code == 0, done.output
    assert again.output == done.output
    assert len(server.requests) == n_asked
    assert "1 prompts: 1 pairs, 0 without a gap; 0 responses without a readable" in done.output
    assert "words: closeness" in done.output
    assert "soft: closeness" in done.output
    (row,) = load_rows(output, PairRow)
    question = row.prompt[0].text
    assert question.startswith("Greet.\n\n")
    assert "- Write about 4 words.\n- Be polite: 6 on a scale from 0 to 10." in question
    assert row.chosen[0].text == "word word word word."
    assert row.rejected[0].text == "word."
    assert row.labels["words"] == (1.0, 0.25)
    assert row.labels["soft_polite"] == pytest.approx((1.0, 0.7))
    assert row.labels["closeness"] == pytest.approx((1.0, 0.475))


@pytest.mark.parametrize("min_gap", [0, 0.05])
def test_responses_that_are_equally_close_make_no_pair(tmp_path, serving, min_gap):
    record = {"prompt": "Greet.", "attributes": [{"kind": "start", "text": "word"}]}
    source, output = write(tmp_path / "in.jsonl", [record]), tmp_path / "out.jsonl"
    with serving(rule) as server:
        done = run(source, "--output", output, "--by", server.who, "--min-gap", min_gap)
    assert done.exit_code == 1
    assert "no pair was found" in done.output
    assert not output.exists()


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"prompt": "p"}, 'in.jsonl:1: field "attributes" is missing'),
        ({"prompt": " ", "attributes": [{"kind": "words", "target": 3}]}, '"prompt" is empty'),
        ({"prompt": "p", "attributes": []}, 'field "attributes" is wrong'),
        ({"prompt": "p", "attributes": [{"kind": "rhyme"}]}, 'field "attributes.0" is wrong'),
        ({"prompt": "p", "attributes": [{"kind": "words", "target": 0}]}, "attributes.0"),
        ({"prompt": "p", "attributes": [{"kind": "soft", "text": "kind"}]}, "name a judge"),
    ],
)
def test_wrong_attributes_are_one_sentence(tmp_path, record, says):
    source = write(tmp_path / "in.jsonl", [record])
    done = run(source, "--output", tmp_path / "out.jsonl", "--by", "http://127.0.0.1:1/v1#m")
    assert done.exit_code == 2
    assert says in done.output
