"""What a diagnosis takes from a run: its rows become the tokens that the run trained on."""

import json
from pathlib import Path

import pytest
from trillium.diagnostics.config import DiagnoseConfig, resolve
from trillium.diagnostics.diagnose import Diagnosis, diagnose
from trillium.diagnostics.sources import find_source
from trillium.errors import ConfigError, DataError
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium.tokenize_config import TokenizeConfig
from trillium.training.journal import read_metrics
from trillium.training.run_config import TrainRun
from trillium.training.runfile import run_training

# Takes thoughts out of earlier turns, as those of Qwen3 and DeepSeek do.
FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('</think>')[-1] }}"
    "{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def answer(place: int, word: str) -> list[dict[str, str]]:
    return [
        said("assistant", f"<think>a long thought of {place}</think>{word}"),
        said("user", "and?"),
        said("assistant", f"<think>hm</think>{word} {place}"),
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold two tiny models, one with a forgetful template, and conversations with thoughts."""
    folder = tmp_path_factory.mktemp("place")
    for name, template in (("tiny", None), ("forgetful", FORGETFUL)):
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = template or tokenizer.chat_template
        tiny_policy().save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    rows = [
        {
            "prompt": [said("user", f"q{i}")],
            "chosen": answer(i, "good"),
            "rejected": answer(i, "bad"),
        }
        for i in range(4)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def train(place: Path, output: Path, base: str, tokenize: dict[str, object]) -> float:
    """Train one step on all rows; returns the mean log-probability of chosen that it recorded."""
    settings = {
        "output": output,
        "data": {"path": place / "pairs.jsonl", "tokenize": tokenize},
        "policy": {"base": str(place / base), "lora": {"r": 2, "alpha": 4}},
        "train": {"max_steps": 1, "per_device_train_batch_size": 4},
    }
    run_training(TrainRun.model_validate(settings), lambda _: None)
    return float(read_metrics(output)[0]["logps/chosen"])


def measure(target: Path, output: Path, **options: object) -> Diagnosis:
    settings = {"target": target, "n_samples": 0, **options}
    return diagnose(DiagnoseConfig.model_validate(settings), output)


def mean(found: Diagnosis, name: str) -> float:
    return sum(row[name] for row in found.rows) / len(found.rows)


@pytest.mark.parametrize(
    ("base", "tokenize"),
    [
        ("tiny", {"scored_turns": "final_answer"}),
        ("tiny", {"scored_turns": "last"}),
        ("tiny", {"truncation": "keep_start", "max_length": 60}),
        ("tiny", {"add_eos": False}),
        ("forgetful", {"on_prefix_violation": "repair"}),
    ],
)
def test_a_run_is_measured_on_the_tokens_that_it_trained_on(
    place: Path, tmp_path: Path, base: str, tokenize: dict[str, object]
) -> None:
    """Before the first step the policy is the reference, so both give chosen the same."""
    recorded = train(place, tmp_path / "run", base, tokenize)
    found = measure(tmp_path / "run", tmp_path / "out")
    assert len(found.rows) == 4
    assert mean(found, "reference_chosen") == pytest.approx(recorded, rel=1e-3)


def test_options_take_the_place_of_how_the_run_made_tokens(place: Path, tmp_path: Path) -> None:
    train(place, tmp_path / "run", "tiny", {"scored_turns": "final_answer"})
    own = measure(tmp_path / "run", tmp_path / "own")
    whole = measure(tmp_path / "run", tmp_path / "whole", scored_turns="all")
    assert mean(own, "n_chosen") < mean(whole, "n_chosen") / 2
    with pytest.raises(DataError, match="none of 4 rows is left"):
        measure(tmp_path / "run", tmp_path / "short", max_length=10)


def test_a_file_alone_takes_the_options(place: Path, tmp_path: Path) -> None:
    pairs, base = place / "pairs.jsonl", str(place / "forgetful")
    with pytest.raises(DataError, match="set on_prefix_violation=repair"):
        measure(pairs, tmp_path / "out", base=base)
    config, _ = resolve(pairs, None, None, {"on_prefix_violation": "repair", "base": base})
    assert config.tokenize_as(TokenizeConfig()) == TokenizeConfig(on_prefix_violation="repair")
    found = measure(pairs, tmp_path / "out", base=base, on_prefix_violation="repair")
    assert len(found.rows) == 4
    with pytest.raises(ConfigError, match="--scored-turns some: input should be 'all', 'last'"):
        resolve(pairs, None, None, {"scored_turns": "some"})


def test_settings_of_a_run_that_no_version_knows_are_named(place: Path, tmp_path: Path) -> None:
    train(place, tmp_path / "run", "tiny", {})
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace("scored_turns: all", "scored_turns: some"))
    with pytest.raises(ConfigError, match=r"config\.yaml: data\.tokenize\.scored_turns = 'some'"):
        find_source(tmp_path / "run")
