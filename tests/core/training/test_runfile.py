import json
import sqlite3
from pathlib import Path

import pytest
from trillium.policies.tiny import CHATML, tiny_policy, tiny_tokenizer
from trillium.training.journal import read_metrics
from trillium.training.run_config import TrainRun
from trillium.training.runfile import run_training

from .row_files import write_row_files


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model on disk, pairs, held-out pairs and a private cache."""
    monkeypatch.setenv("TRILLIUM_CACHE", str(tmp_path / "cache"))
    tiny_policy().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    write_row_files(tmp_path)
    return tmp_path


def train(place: Path, output: str = "run", **options: object) -> list[str]:
    """Train two steps, and return what was said."""
    said: list[str] = []
    settings = {
        "output": place / output,
        "data": {"path": place / "pairs.jsonl", **options},
        "policy": {"base": str(place / "model"), "dtype": "float32", "lora": {"r": 2, "alpha": 4}},
        "train": {"max_steps": 2, "per_device_train_batch_size": 4},
    }
    run_training(TrainRun.model_validate(settings), said.append)
    return said


def adapter_of(place: Path, output: str = "run") -> Path:
    return place / output / "adapter" / "adapter_model.safetensors"


def change_template(model: Path) -> None:
    path = model / "chat_template.jinja"
    assert path.read_text() == CHATML
    path.write_text("<|im_start|>system\nBe brief.<|im_end|>\n" + CHATML)


def change_norm(model: Path) -> None:
    path = model / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"rms_norm_eps": 0.5}))


def change_tokenizer(model: Path) -> None:
    path = model / "tokenizer.json"
    settings = json.loads(path.read_text())
    vocabulary = settings["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(settings))


@pytest.mark.parametrize("change", [change_template, change_norm, change_tokenizer])
def test_a_base_that_reads_or_computes_otherwise_is_trained_anew(place: Path, change) -> None:
    train(place)
    before = adapter_of(place).read_bytes()
    first = read_metrics(place / "run")[0]["logps/chosen"]
    change(place / "model")
    assert any(line.startswith("reference: base") for line in train(place))
    train(place, "fresh")
    assert adapter_of(place).read_bytes() == adapter_of(place, "fresh").read_bytes() != before
    assert read_metrics(place / "run")[0]["logps/chosen"] != first


def test_the_same_command_again_trains_nothing(place: Path) -> None:
    train(place)
    before = adapter_of(place).stat().st_mtime_ns
    (place / "model" / "README.md").write_text("A note.")
    (said,) = train(place)
    assert said.startswith("rows: 12 of 12 rows kept")
    assert adapter_of(place).stat().st_mtime_ns == before


def test_held_out_rows_that_nothing_evaluates_are_named_and_cost_nothing(place: Path) -> None:
    others = {"prompt": "other", "chosen": "yes", "rejected": "no"}
    (place / "others.jsonl").write_text(json.dumps(others) + "\n")
    said = train(place, held_out=place / "others.jsonl")
    assert said[0].splitlines()[1] == (
        "held out: 1 rows, which only trillium diagnose reads; set train.eval_steps to evaluate on "
        "them"
    )
    with sqlite3.connect(place / "cache" / "reference-logps.sqlite") as database:
        (n_records,) = database.execute("SELECT count(*) FROM logps").fetchone()
    assert n_records == 24
    # They are no part of the result, so others in their place change nothing.
    before = adapter_of(place).stat().st_mtime_ns
    train(place, held_out=place / "pairs.jsonl")
    assert adapter_of(place).stat().st_mtime_ns == before
