"""The browser of samples: what it reads, and what it does in a real browser."""

import importlib.util
import json
from pathlib import Path

import pytest
from trillium.assets import ASSETS
from trillium.errors import ConfigError, DataError
from trillium.policies.tiny import tiny_tokenizer
from trillium.report.browse import browse
from trillium.report.browse_samples import find_sample_files, kind_of, read_samples, tree_sample
from trillium.training.round_rows import write_trees
from trillium.trees import TokenPath, TokenTree

_spec = importlib.util.spec_from_file_location(
    "in_browser", Path(__file__).with_name("test_in_browser.py")
)
chromium = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(chromium)

ROWS = [
    {"id": "one", "prompt": "Name a colour.", "chosen": "Blue.", "rejected": "A spoon.", "gap": 2},
    {"id": "two", "prompt": "Add 1 and 2.", "chosen": "3", "rejected": chromium.ATTACK},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pair_tree(tokenizer):
    prompt, right, wrong = (
        tuple(tokenizer.encode(text)) for text in ("2 and 2?", " is 4", " is 5")
    )
    paths = [
        TokenPath(prompt + reply, (False,) * len(prompt) + (True,) * len(reply))
        for reply in (right, wrong)
    ]
    return TokenTree.from_paths("sum", paths, columns={"margin": 0.5})


def test_a_tree_of_tokens_reads_as_its_paths_do():
    tokenizer = tiny_tokenizer()
    sample = tree_sample(pair_tree(tokenizer), tokenizer.decode, "pair")
    texts = ["".join(part for part, _ in node.parts) for node in sample.nodes]
    by_badge = {badge: index for index, node in enumerate(sample.nodes) for badge in node.badges}
    for side, reply in (("chosen", "2 and 2? is 4"), ("rejected", "2 and 2? is 5")):
        index, text = by_badge[side], ""
        while index >= 0:
            index, text = sample.nodes[index].parent, texts[index] + text
        assert text == reply
    assert sample.badges == ("margin 0.5",)
    assert [part for node in sample.nodes for part, scored in node.parts if not scored] == [
        "2 and 2?"
    ]


def test_every_kind_of_row_becomes_a_tree(tmp_path):
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    steps = [{"text": "a", "parent": -1}, {"text": "b", "parent": 0}, {"text": "c", "parent": 0}]
    kinds = {
        "pair": ROWS[:1],
        "ranking": [{"prompt": "p", "completions": ["x", "y"], "rewards": [1.0, 0.0]}],
        "label": [{"prompt": "p", "completion": "x", "label": True}],
        "trajectory": [{"messages": chat, "reward": 1.0}],
        "search tree": [{"prompt": "p", "steps": steps, "labels": {"reward": [1.0, 0.0]}}],
    }
    parents = {
        "pair": [-1, 0, 0],
        "ranking": [-1, 0, 0],
        "label": [-1, 0],
        "trajectory": [-1],
        "search tree": [-1, 0, 1, 1],
    }
    for kind, rows in kinds.items():
        (sample,) = read_samples(write(tmp_path / f"{kind}.jsonl", rows), None)
        assert sample.kind == kind
        assert [node.parent for node in sample.nodes] == parents[kind]
    assert find_sample_files(tmp_path) == sorted(tmp_path.glob("*.jsonl"))


def test_rows_of_tokens_keep_the_mask_of_a_trajectory(tmp_path):
    tokenizer = tiny_tokenizer()
    ids = tokenizer.encode("ask call said done")
    row = {"id": "t", "token_ids": ids, "spans": [[1, 2]], "outcome": "answered", "reward": 1.0}
    (sample,) = read_samples(write(tmp_path / "t.jsonl", [row]), tokenizer.decode)
    assert [scored for _, scored in sample.nodes[0].parts] == [False, True, False]
    assert "".join(text for text, _ in sample.nodes[0].parts) == tokenizer.decode(ids)
    assert sample.badges == ("outcome answered", "reward 1.0")


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (['{"id": "x", "prompt_ids": [1], "chosen_ids": [5], "rejected_ids": ["a"]}'], "token ids"),
        (['{"id": "x", "prompt_ids": [1], "chosen_ids": [5], "rejected_ids": [-1]}'], "from 0"),
        (['{"prompt_ids": [1], "chosen_ids": [5], "rejected_ids": [6]}', "no"], "is not JSON"),
        (['{"prompt_ids": [1], "chosen_ids": [5], "rejected_ids": [6]}', "[1]"], "is no object"),
        (['{"prompt_ids": [1], "chosen_ids": [5], "rejected_ids": [6]}', "{}"], '"prompt_ids" is'),
        (['{"token_ids": [1, 2], "spans": [[0, 3]]}'], "within 2 tokens"),
        (['{"token_ids": [1, 2], "spans": [1]}'], "within 2 tokens"),
        (['{"token_ids": [1, 2], "spans": 1}'], "within 2 tokens"),
        (['{"id": "x", "nodes": [], "leaves": []}'], "0 nodes and 0 paths"),
        (['{"nodes": [{"ids": ["a"]}], "leaves": [0]}'], 'field "nodes.0.ids.0": input should'),
    ],
)
def test_wrong_rows_of_tokens_are_named_by_their_line(tmp_path, rows, sentence):
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    path = tmp_path / "rows.jsonl"
    path.write_text("\n" + "\n".join(rows) + "\n")
    line = len(rows) + 1
    with pytest.raises(DataError, match=rf"rows\.jsonl:{line}: .*{sentence}"):
        browse([path], tokenizer=str(tmp_path / "tiny"), max_samples=10)


def test_rows_of_tokens_need_no_id(tmp_path):
    row = {"token_ids": [70, 71, 72], "spans": [[1, 2]]}
    (tmp_path / "t.jsonl").write_text("\n" + json.dumps(row) + "\n")
    (sample,) = read_samples(tmp_path / "t.jsonl", tiny_tokenizer().decode)
    assert sample.id == "2"
    assert [scored for _, scored in sample.nodes[0].parts] == [False, True, False]


def test_a_tokenizer_has_the_name_that_policy_base_takes(tmp_path, monkeypatch):
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tiny")
    monkeypatch.setenv(ASSETS["smollm2-135m-instruct"].variable, str(tmp_path / "tiny"))
    write_trees(tmp_path / "trees.jsonl", [pair_tree(tokenizer)])
    page = browse([tmp_path / "trees.jsonl"], tokenizer="smollm2-135m-instruct", max_samples=10)
    assert "2 and 2?" in page
    with pytest.raises(ConfigError, match="is neither an asset, nor a folder"):
        browse([tmp_path / "trees.jsonl"], tokenizer="smollm", max_samples=10)


def test_what_cannot_be_shown_is_said(tmp_path):
    tokens = tmp_path / "trees.jsonl"
    write_trees(tokens, [pair_tree(tiny_tokenizer())])
    with pytest.raises(DataError, match=r"trees\.jsonl: holds token ids .* --tokenizer"):
        browse([tokens], tokenizer=None, max_samples=10)
    with pytest.raises(ConfigError, match="there is no such file or folder"):
        browse([tmp_path / "none"], tokenizer=None, max_samples=10)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pairs, trees or trajectories"):
        browse([tmp_path / "empty"], tokenizer=None, max_samples=10)
    other = write(tmp_path / "other.jsonl", [{"loss": 1}])
    with pytest.raises(DataError, match=r"other\.jsonl: holds no samples"):
        browse([other], tokenizer=None, max_samples=10)


def test_files_that_train_are_shown(tmp_path):
    """A byte order mark, a blank line, a pair whose prompt is what its sides begin with."""
    pair = {
        side: [{"role": "user", "content": "q"}, {"role": "assistant", "content": side}]
        for side in ("chosen", "rejected")
    }
    path = tmp_path / "pairs.jsonl"
    for before in (b"\xef\xbb\xbf", b"\n"):
        path.write_bytes(before + json.dumps(pair).encode() + b"\n")
        assert kind_of(path) == "pair"
        assert "1 samples" in browse([path], tokenizer=None, max_samples=10)
    broken = tmp_path / "broken.parquet"
    broken.write_text("no")
    with pytest.raises(DataError, match="its first row cannot be read"):
        browse([broken], tokenizer=None, max_samples=10)


def test_samples_that_nobody_judged_are_no_ranking(tmp_path):
    rows = [{"prompt": "0", "completions": [[{"ids": [7, 2]}]]}]
    assert kind_of(write(tmp_path / "samples.jsonl", rows)) is None


def test_what_does_not_fit_on_the_page_is_counted(tmp_path):
    page = browse([write(tmp_path / "p.jsonl", ROWS)], tokenizer=None, max_samples=1)
    assert "1 samples; 1 more are not on this page" in page


@pytest.mark.slow
@pytest.mark.security
@pytest.mark.skipif(chromium.CHROMIUM is None, reason="no chromium on PATH")
def test_the_page_finds_a_sample_and_runs_nothing_of_it(tmp_path):
    page = browse([write(tmp_path / "p.jsonl", ROWS)], tokenizer=None, max_samples=10)
    every = chromium.browse(tmp_path, page, "--dump-dom").stdout
    assert "2 of 2 samples, page 1 of 1" in every
    assert "<title>p.jsonl</title>" in every
    # One script stays one script, whatever the samples hold.
    assert every.count("<script") == 2
    (tmp_path / "search.html").write_text(page)
    found = chromium.subprocess.run(
        [
            chromium.CHROMIUM,
            *chromium.FLAGS,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            (tmp_path / "search.html").as_uri() + "#spoon",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "1 of 2 samples" in found.stdout
    assert '<span class="scored">A spoon.</span>' in found.stdout
    assert not chromium.console(found)
