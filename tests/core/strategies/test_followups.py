"""Follow-up rewards: what is scored, and which files of completions are taken."""

import json

import pytest
import torch
from trillium.cli import app
from trillium.errors import DataError
from trillium.policies.config import PolicyConfig
from trillium.policies.load import load_policy
from trillium.records import RankingRow
from trillium.rowfiles import load_rows, save_rows
from trillium.strategies.followups import CompletionsRow, followup_reward, followup_tree
from typer.testing import CliRunner


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_followups_score_the_users_next_words_and_nothing_else(model):
    policy = load_policy(PolicyConfig(base=str(model), dtype="float32"), seed=0)
    tokenizer = policy.tokenizer
    words = ("thank you", "no good")
    tree = followup_tree(tokenizer, "Add 1 and 2.", "It is 3.", words)
    for index, followup in enumerate(words):
        path = tree.path(index)
        ids = [i for i, scored in zip(path.ids, path.scored, strict=True) if scored]
        assert tokenizer.decode(ids).strip() == followup
    reward = followup_reward(
        policy, "Add 1 and 2.", "It is 3.", positive=words[:1], negative=words[1:]
    )
    means = []
    for index in range(2):
        path = tree.path(index)
        ids = torch.tensor([path.ids])
        with torch.no_grad():
            logps = policy.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        token = logps.gather(1, ids[0, 1:, None])[:, 0]
        means.append(token[torch.tensor(path.scored[1:])].mean())
    assert reward == pytest.approx(float(means[0] - means[1]), abs=1e-5)


def test_completions_get_rewards_in_a_file_of_rankings(model, tmp_path):
    record = {"prompt": "Add 1 and 2.", "completions": ["3", "4", "5"]}
    source, output = write(tmp_path / "in.jsonl", [record]), tmp_path / "out.jsonl"
    command = ["data", "followups", str(source), "--output", str(output), "--base", str(model)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    rewards = json.loads(output.read_text())["rewards"]
    assert len(set(rewards)) == 3


RANKED = {"id": "r", "prompt": "p", "completions": ["c", "d"], "ranks": [2, 1], "labels": [0, 1]}
FREE = {"id": "f", "prompt": "p", "completions": ["a", "b", "c"], "weight": 0.5}


@pytest.mark.parametrize("kind", ["plain", "mark", "blank", "parquet"])
def test_completions_ranked_or_not_are_read_wherever_rows_are(tmp_path, kind):
    source = write(tmp_path / "in.jsonl", [RANKED, FREE])
    content = source.read_bytes()
    extra = {"mark": b"\xef\xbb\xbf" + content, "blank": b"\n" + content + b" \n\n"}
    source.write_bytes(extra.get(kind, content))
    rows = load_rows(source, CompletionsRow)
    if kind == "parquet":
        source = tmp_path / "in.parquet"
        save_rows(source, rows)
        rows = load_rows(source, CompletionsRow)
    assert [row.labels for row in rows] == [
        {"rank": (2.0, 1.0), "label": (0.0, 1.0)},
        {"reward": (0.0, 0.0, 0.0)},
    ]
    assert rows[1].columns == {"weight": 0.5}
    with pytest.raises(DataError, match='field "rewards" is missing'):
        load_rows(write(tmp_path / "x.jsonl", [FREE]), RankingRow)


def test_every_line_that_holds_no_completions_is_named(tmp_path, model):
    lines = ["[1]", "{", '{"prompt": "p"}', '{"prompt": "p", "completions": "a"}', json.dumps(FREE)]
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(lines))
    command = ["data", "followups", str(source), "--output", str(tmp_path / "out.jsonl")]
    done = CliRunner().invoke(app, [*command, "--base", str(model)])
    assert done.exit_code == 2
    said = done.output.splitlines()
    assert said[0].endswith(
        ":1: is a list, not an object (needs prompt, completions); write one object per line"
    )
    assert ":2: is not JSON" in said[1]
    assert said[2].endswith(
        ':3: field "completions" is missing (needs prompt, completions); drop the line or add the '
        "field"
    )
    assert ':4: field "completions" is "a" (needs a non-empty list of responses)' in said[3]
    assert len(said) == 4
    assert not (tmp_path / "out.jsonl").exists()
