import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from trillium.diagnostics import passes
from trillium.diagnostics.config import DiagnoseConfig, resolve
from trillium.diagnostics.diagnose import Diagnosis, diagnose
from trillium.diagnostics.pair_files import read_pairs
from trillium.diagnostics.sources import _beta, find_source
from trillium.errors import ConfigError, DataError
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium.tokenize import TokenizeConfig
from trillium.training.run_config import TrainRun
from trillium.training.runfile import run_training

COLOURS, THINGS = ["red", "green", "blue", "white"], ["sun", "moon", "cat", "dog"]


def make_rows(n: int, shift: int = 0) -> list[dict[str, object]]:
    return [
        {
            "prompt": f"{n + shift} say: ",
            "chosen": " ".join(COLOURS[(n + place + shift) % 4] for place in range(2 + n % 3)),
            "rejected": " ".join(THINGS[(n + place) % 4] for place in range(1 + n % 2)),
        }
        for n in range(n)
    ]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold a tiny model, pairs, held-out pairs, and a run that trained on them."""
    folder = tmp_path_factory.mktemp("place")
    tiny_policy().save_pretrained(folder / "tiny")
    tiny_tokenizer().save_pretrained(folder / "tiny")
    write(folder / "pairs.jsonl", make_rows(10))
    write(folder / "held.jsonl", make_rows(4, shift=1))
    run = {
        "output": folder / "run",
        "data": {"path": folder / "pairs.jsonl", "held_out": folder / "held.jsonl"},
        "policy": {"base": str(folder / "tiny"), "lora": {"r": 4, "alpha": 8}},
        "objective": {"name": "dpo", "beta": 0.2},
        "train": {"learning_rate": 0.01, "max_steps": 6, "per_device_train_batch_size": 5},
    }
    run_training(TrainRun.model_validate(run), lambda _: None)
    return folder


def run(folder: Path, output: Path, **options: object) -> Diagnosis:
    settings = {"target": folder / "run", "n_samples": 3, "max_new_tokens": 6} | options
    return diagnose(DiagnoseConfig.model_validate(settings), output)


def test_a_run_is_measured_judged_and_reported(place: Path, tmp_path: Path) -> None:
    found = run(place, tmp_path / "out")
    topics = {finding.topic for finding in found.findings}
    assert topics == {
        "CHES",
        "ranking accuracy",
        "idealised ranking accuracy",
        "difficulty",
        "likelihood displacement",
        "saturation",
        "drastic drop",
        "degradation",
        "dispersion",
        "coverage",
        "over-optimisation",
    }
    assert all(f.advice and f.source and f.threshold for f in found.findings)
    assert not [f for f in found.findings if f.state == "unknown"]
    # The beta of the run, not the default, is what the limits come from.
    assert any("beta 0.2" in f.figure for f in found.findings)
    page = (tmp_path / "out/report.html").read_text()
    assert page.count("<svg") > 4
    assert json.loads((tmp_path / "out/findings.json").read_text())[0]["topic"] == "CHES"

    # The figures agree with what training itself recorded of its last step.
    last = json.loads((place / "run/metrics.jsonl").read_text().splitlines()[-1])
    margin = [
        (row["policy_chosen"] - row["reference_chosen"])
        - (row["policy_rejected"] - row["reference_rejected"])
        for row in found.rows
    ]
    assert last["margin_nats"] > 1
    assert sum(margin) / len(margin) > last["margin_nats"] * 0.5


def test_ches_comes_from_the_states_that_predict_the_response(place: Path, tmp_path: Path) -> None:
    found = run(place, tmp_path / "out", target=place / "pairs.jsonl", base=str(place / "tiny"))
    # The policy may have been loaded in bfloat16, which rounds its states.
    model, tokenizer = tiny_policy(), tiny_tokenizer()
    for index in (0, 4, 9):
        row = make_rows(10)[index]
        sums, counts = [], []
        for side in ("chosen", "rejected"):
            prompt = tokenizer(str(row["prompt"])).input_ids
            reply = tokenizer(str(row[side]) + "<|im_end|>").input_ids
            with torch.no_grad():
                states = model.model(torch.tensor([prompt + reply]))[0][0]
            sums.append(states[len(prompt) - 1 : -1].double().sum(0))
            counts.append(len(reply))
        expected = float(sums[0] @ sums[1] - sums[0] @ sums[0])
        assert found.rows[index]["ches"] == pytest.approx(expected, rel=2e-2)
        scaled = float(sums[0] @ sums[1]) / counts[0] / counts[1]
        scaled -= float(sums[0] @ sums[0]) / counts[0] ** 2
        assert found.rows[index]["ches_per_token"] == pytest.approx(scaled, rel=2e-2)


def test_a_file_alone_is_judged_by_the_base_and_filtered(place: Path, tmp_path: Path) -> None:
    found = run(place, tmp_path / "out", target=place / "pairs.jsonl", base=str(place / "tiny"))
    assert {f.topic for f in found.findings} == {
        "CHES",
        "ranking accuracy",
        "idealised ranking accuracy",
        "difficulty",
    }
    assert found.write_filtered(0.3, tmp_path / "kept.jsonl") == 3
    kept = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    order = sorted(range(10), key=lambda index: found.rows[index]["ches_per_token"])
    rows = make_rows(10)
    assert [one["prompt"] for one in kept] == [rows[i]["prompt"] for i in sorted(order[:3])]
    assert found.write_filtered(0.3, tmp_path / "kept.parquet") == 3
    with pytest.raises(ConfigError, match="name another one"):
        found.write_filtered(0.3, place / "pairs.jsonl")


def test_rows_of_one_id_are_told_apart_where_one_is_left_out(tmp_path: Path) -> None:
    long = {"id": "q", "prompt": "p", "chosen": "x" * 400, "rejected": "y"}
    short = {"id": "q", "prompt": "p", "chosen": "short", "rejected": "y"}
    path = write(tmp_path / "pairs.jsonl", [long, short])
    found = read_pairs(path, tiny_tokenizer(), TokenizeConfig(max_length=100))
    assert [tree.id for tree in found.trees] == ["q"]
    found.write(tmp_path / "kept.jsonl", [0])
    assert json.loads((tmp_path / "kept.jsonl").read_text())["chosen"] == "short"


def test_lines_of_tokens_end_where_a_line_ends(tmp_path: Path) -> None:
    """A line separator inside a name, as JSON may hold it, and a blank line, end nothing."""
    path = tmp_path / "trees.jsonl"
    row = {"prompt_ids": [9], "chosen_ids": [8], "rejected_ids": [7], "id": "a\u2028b"}
    path.write_text("\n" + json.dumps(row, ensure_ascii=False) + "\n")
    found = read_pairs(path, tiny_tokenizer(), TokenizeConfig())
    found.write(tmp_path / "kept.jsonl", [0])
    assert json.loads((tmp_path / "kept.jsonl").read_text()) == row
    path.write_bytes(b'{"prompt_ids": [9], "chosen_ids": [8], "rejected_ids": [7], "id": "\xff"}\n')
    with pytest.raises(DataError, match=r"trees\.jsonl:1: is not UTF-8"):
        read_pairs(path, tiny_tokenizer(), TokenizeConfig())


def test_a_killed_diagnosis_ends_with_the_same_bytes(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "_CHUNK", 4)
    run(place, tmp_path / "whole")
    measure, calls = passes._measure, []

    def dying(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(passes, "_measure", dying)
        with pytest.raises(KeyboardInterrupt):
            run(place, tmp_path / "killed")
    assert not (tmp_path / "killed/pairs.jsonl").exists()
    run(place, tmp_path / "killed")
    for name in ("pairs.jsonl", "held_out.jsonl", "samples.jsonl", "findings.json"):
        ours, theirs = tmp_path / "killed" / name, tmp_path / "whole" / name
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_pairs_come_out_of_every_kind_of_preference_file(tmp_path: Path) -> None:
    tokenizer, config = tiny_tokenizer(), TokenizeConfig()

    def read(name: str, rows: list[dict[str, object]]) -> list[tuple[str, str]]:
        found = read_pairs(write(tmp_path / name, rows), tokenizer, config)
        return [
            tuple(tokenizer.decode(t.path(i).ids, skip_special_tokens=True) for i in (0, 1))
            for t in found.trees
        ]

    ranking = {"prompt": "p ", "completions": ["a", "b", "c"]}
    assert read("r.jsonl", [ranking | {"rewards": [0.1, 0.9, -2]}]) == [("p b", "p c")]
    assert read("k.jsonl", [ranking | {"ranks": [2, 3, 1]}]) == [("p c", "p b")]
    labelled = [
        {"prompt": "p ", "completion": text, "label": label}
        for text, label in (("x", False), ("y", True), ("z", True))
    ]
    assert read("l.jsonl", labelled) == [("p y", "p x")]
    ids = {"prompt_ids": [70, 71], "chosen_ids": [72], "rejected_ids": [73], "id": "one"}
    (tree,) = read_pairs(write(tmp_path / "i.jsonl", [ids]), tokenizer, config).trees
    assert tree.path(0).ids == (70, 71, 72)
    assert tree.path(1).scored == (False, False, True)


def test_what_a_run_was_held_to_is_its_reference(place: Path) -> None:
    source = find_source(place / "run")
    assert source.reference is None
    assert source.beta == 0.2
    assert _beta({"name": "simpo", "beta": 2.0}) is None
    assert _beta({"name": "kto", "beta": 0.1}) == 0.1
    assert source.adapter == place / "run/adapter"
    assert source.metrics == (place / "run/metrics.jsonl",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "p", "chosen": "a"}\n', 'rejected" is missing'),
        ("", "has no rows"),
        ("not json\n", "is not JSON"),
        ('{"prompt_ids": [1], "chosen_ids": ["a"], "rejected_ids": [2]}\n', r":1: is no pair"),
        ('{"prompt_ids": [9], "chosen_ids": [], "rejected_ids": [2]}\n', "no token that counts"),
        ('{"prompt_ids": [9], "chosen_ids": [260], "rejected_ids": [2]}\n', "knows 0 to 259"),
        ('{"prompt_ids": [9], "chosen_ids": [-1], "rejected_ids": [2]}\n', "tokens -1 to 9"),
        ('{"nodes": [], "leaves": []}\n', r"rows\.jsonl:1: is no pair in tokens"),
        ('{"prompt": "p", "completion": "a", "label": true}\n', "no prompt has both"),
        ('{"prompt": "p", "chosen": "a", "rejected": "a"}\n', "none of 1 rows is left"),
    ],
)
def test_rows_that_are_no_pairs_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_pairs(path, tiny_tokenizer(), TokenizeConfig())


def test_targets_and_options_that_make_no_sense_are_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file or folder"):
        find_source(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is not a run folder"):
        find_source(tmp_path)
    with pytest.raises(ConfigError, match=r"KEEP is 2 "):
        resolve(place, None, 2.0, {})
    with pytest.raises(ConfigError, match="needs every pair"):
        resolve(place, None, 0.5, {"n_pairs": 3})
    with pytest.raises(ConfigError, match=re.escape("--beta -1")):
        resolve(place, None, None, {"beta": -1})
    with pytest.raises(ConfigError, match="holds no adapter"):
        run(place, tmp_path / "out", adapter=tmp_path)


@pytest.mark.parametrize("change", ["weights", "template"])
def test_another_base_under_the_same_name_is_measured_anew(
    place: Path, tmp_path: Path, change: str
) -> None:
    """The new rows are those of a diagnosis that never saw the old base."""
    base = shutil.copytree(place / "tiny", tmp_path / "base")
    rows = [
        {key: [{"role": "user" if key == "prompt" else "assistant", "content": text}]}
        for key, text in (("prompt", "say"), ("chosen", "red"), ("rejected", "sun"))
    ]
    pairs = write(tmp_path / "pairs.jsonl", [rows[0] | rows[1] | rows[2]])
    options = {"target": pairs, "base": str(base), "n_samples": 0}
    before = run(place, tmp_path / "out", **options)
    if change == "weights":
        tiny_policy(seed=7).save_pretrained(base)
    else:
        template = base / "chat_template.jinja"
        template.write_text("<|im_start|>system\nBe brief.<|im_end|>\n" + template.read_text())
    after = run(place, tmp_path / "out", **options)
    fresh = run(place, tmp_path / "fresh", **options)
    assert after.rows == fresh.rows != before.rows
    # What no file has changed is read, not measured.
    (measured,) = (tmp_path / "out").glob("pairs.jsonl")
    stamp = measured.stat().st_mtime_ns
    assert run(place, tmp_path / "out", **options).rows == after.rows
    assert measured.stat().st_mtime_ns == stamp
