"""Personal prompts: whose choices they hold, where they stand, and which users are kept apart."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trillium.cli import app
from trillium.errors import DataError
from trillium.fields import Message
from trillium.policies.tiny import tiny_tokenizer
from trillium.records import PairRow
from trillium.rowfiles import load_rows, parse_rows
from trillium.strategies.personal import personalise, read_users
from trillium.tokenize import tokenize_prompts
from typer.testing import CliRunner


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_prompts_hold_other_choices_of_the_same_user_and_users_are_split():
    records = [
        {"id": f"{user}{i}", "prompt": f"q {user}{i}", "chosen": "yes", "rejected": "no"}
        for user in "abcde"
        for i in range(3)
    ]
    users = [record["id"][0] for record in records]
    pairs = parse_rows(records, PairRow, where="memory")
    found = personalise(pairs, users, n_examples=2, held_out=0.4, seed=1)
    assert (len(found.train), len(found.held_out)) == (9, 6)
    assert {row.id[0] for row in found.train}.isdisjoint({row.id[0] for row in found.held_out})
    for row in found.train:
        asked = re.findall(r"q (\w\d)", row.prompt)
        assert asked[-1] == row.id
        assert {name[0] for name in asked} == {row.id[0]}
        assert len(set(asked)) == 3
    with pytest.raises(DataError, match="no user has more than 5 rows"):
        personalise(pairs, users, n_examples=5, held_out=0.0, seed=0)
    with pytest.raises(DataError, match=r"f\.jsonl:2: field 'user' is None"):
        read_users([{"user": "a"}, {}], "user", "f.jsonl")


def test_a_choice_on_the_same_prompt_is_no_example():
    asked = [("1", "fruit?"), ("2", "fruit?"), ("3", "colour?")]
    records = [
        {"id": id, "prompt": prompt, "chosen": f"yes {id}", "rejected": "no"}
        for id, prompt in asked
    ]
    pairs = parse_rows(records, PairRow, where="memory")
    found = personalise(pairs, ["u", "u", "u"], n_examples=1, held_out=0.0, seed=0)
    shown = [re.findall(r"yes (\d)", row.prompt) for row in found.train]
    assert shown[:2] == [["3"], ["3"]]
    assert shown[2] in (["1"], ["2"])
    found = personalise(pairs, ["u", "u", "u"], n_examples=2, held_out=0.0, seed=0)
    assert ([row.id for row in found.train], found.n_without_examples) == (["3"], 2)


@pytest.mark.parametrize(
    ("share", "users", "says"),
    [(0.2, "aaaa", "left to hold out"), (0.9, "aaab", "left to train on")],
)
def test_users_held_out_are_some_and_not_all(tmp_path, share, users, says):
    records = [
        {"prompt": f"q {n}", "chosen": "yes", "rejected": "no", "user": user}
        for n, user in enumerate(users)
    ]
    pairs, output = write(tmp_path / "pairs.jsonl", records), tmp_path / "out.jsonl"
    command = ["data", "personalise", pairs, "--output", output, "--examples", 1]
    command += ["--held-out-output", tmp_path / "others.jsonl", "--held-out", share]
    done = CliRunner().invoke(app, list(map(str, command)))
    assert done.exit_code == 2
    assert says in done.output
    assert not output.exists()


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\n", b"parquet"])
def test_users_are_read_wherever_pairs_are(tmp_path, before):
    records = [
        {"prompt": f"q {n}", "chosen": "yes", "rejected": "no", "user": "u"} for n in range(3)
    ]
    if before == b"parquet":
        pairs = tmp_path / "pairs.parquet"
        pq.write_table(pa.Table.from_pylist(records), pairs)
    else:
        pairs = write(tmp_path / "pairs.jsonl", records)
        pairs.write_bytes(before + pairs.read_bytes())
    outputs = [tmp_path / "out.jsonl", tmp_path / "others.jsonl"]
    done = personalise_file(pairs, *outputs)
    assert (done.exit_code, len(outputs[0].read_text().splitlines())) == (0, 3)


def test_two_outputs_are_two_files(tmp_path):
    pairs = write(tmp_path / "pairs.jsonl", [])
    done = personalise_file(pairs, tmp_path / "a.jsonl", tmp_path / "x" / ".." / "a.jsonl")
    assert done.exit_code == 2
    assert "name two files" in done.output


def personalise_file(pairs, output, others):
    command = ["data", "personalise", pairs, "--output", output, "--held-out-output", others]
    command += ["--examples", 1, "--held-out", 0]
    return CliRunner().invoke(app, list(map(str, command)))


def chat(*turns):
    """Return messages; a turn begins with s, u or a for its role."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[turn[0]], "content": turn[1:]} for turn in turns]


def conversation(number, *, is_implicit, **further):
    """Return a pair whose question, the last user turn, and replies name its number."""
    start = chat("sBe brief.", "uHi", "aHello", f"uq {number}")
    sides = {"chosen": chat(f"ayes {number}"), "rejected": chat(f"ano {number}")}
    if is_implicit:
        sides = {name: [*start, *reply] for name, reply in sides.items()}
    return {"id": str(number), **({} if is_implicit else {"prompt": start}), **sides, **further}


@pytest.mark.parametrize("is_implicit", [False, True])
def test_choices_stand_in_the_last_user_turn_of_a_conversation(tmp_path, is_implicit):
    blocks = {"role": "user", "content": [{"type": "text", "text": "q 3"}]}
    records = [
        conversation(n, is_implicit=is_implicit, user="u", gold=chat(f"agold {n}"))
        for n in range(4)
    ]
    for field in ("chosen", "rejected") if is_implicit else ("prompt",):
        records[3][field][3] = blocks
    pairs = write(tmp_path / "pairs.jsonl", records)
    output = tmp_path / "out.jsonl"
    done = personalise_file(pairs, output, tmp_path / "others.jsonl")
    assert done.exit_code == 0, done.output
    found = load_rows(output, PairRow)
    assert [row.id for row in found] == ["0", "1", "2", "3"]
    for row in found:
        *before, turn = row.prompt
        assert before == [
            Message("system", "Be brief."),
            Message("user", "Hi"),
            Message("assistant", "Hello"),
        ]
        assert turn.role == "user"
        (shown,) = re.findall(r"### Preferred\nassistant: yes (\d)", turn.content)
        assert shown != row.id
        assert turn.content.endswith(
            f"## New question\nq {row.id}\n\nAnswer it as this user would prefer."
        )
        assert row.chosen == (Message("assistant", f"yes {row.id}"),)
        assert row.rejected == (Message("assistant", f"no {row.id}"),)
        assert row.further["gold"].prompt == row.prompt
        (ids,) = tokenize_prompts([row.prompt], tiny_tokenizer())
        assert f"q {row.id}" in tiny_tokenizer().decode(ids)


def test_choices_stand_before_one_prompt_only(tmp_path):
    records = [
        {"prompt": "q 1", "chosen": "yes", "rejected": "no", "user": "u"},
        {"prompt": "q 2", "chosen": "yes", "rejected": "no", "user": "u", "rejected_prompt": "r"},
        conversation(3, is_implicit=False, user="u", gold=chat("ag"), gold_prompt=chat("uother")),
        {**conversation(4, is_implicit=False, user="u"), "prompt": chat("sBe brief.")},
    ]
    pairs, output = write(tmp_path / "pairs.jsonl", records), tmp_path / "out.jsonl"
    done = personalise_file(pairs, output, tmp_path / "others.jsonl")
    assert done.exit_code == 2
    said = done.output.splitlines()
    assert ':2: field "rejected_prompt" is a prompt of its own' in said[0]
    assert ':3: field "gold_prompt" is a prompt of its own' in said[1]
    assert ':4: field "prompt" has no turn of the user' in said[2]
    assert len(said) == 3
    assert not output.exists()
