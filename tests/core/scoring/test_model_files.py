import json
from pathlib import Path

import pytest
from huggingface_hub import constants
from trillium.policies.tiny import tiny_policy
from trillium.scoring.model_files import hash_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRILLIUM_CACHE", str(tmp_path / "cache"))
    tiny_policy().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_is_named_by_what_it_computes(folder: Path) -> None:
    """Weights, architecture and stop tokens count; notes and tokenizers do not."""
    found = [hash_model(str(folder))]
    (folder / "README.md").write_text("changed")
    (folder / "tokenizer_config.json").write_text("{}")
    assert hash_model(str(folder)) == found[0]
    for name, key, value in (
        ("config.json", "rms_norm_eps", 0.5),
        ("generation_config.json", "eos_token_id", 7),
    ):
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(settings | {key: value}))
        found.append(hash_model(str(folder)))
    tiny_policy(seed=1).save_pretrained(folder)
    found.append(hash_model(str(folder)))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    found.append(hash_model(str(folder)))
    assert len(set(found)) == 5


def test_a_copy_of_a_model_has_its_name(folder: Path, tmp_path: Path) -> None:
    tiny_policy().save_pretrained(tmp_path / "copy")
    assert hash_model(str(tmp_path / "copy")) == hash_model(str(folder))


def test_a_model_of_the_hub_is_named_by_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--org--model"
    (place / "refs").mkdir(parents=True)
    found = []
    for commit in ("a" * 40, "b" * 40):
        (place / "snapshots" / commit).mkdir(parents=True)
        (place / "snapshots" / commit / "tokenizer.json").write_text("{}")
        (place / "refs" / "main").write_text(commit)
        found.append(hash_model("org/model"))
        # What is fetched later of the same commit changes nothing.
        (place / "snapshots" / commit / "model.safetensors").write_text("weights")
        assert hash_model("org/model") == found[-1]
    assert found[0] != found[1]
