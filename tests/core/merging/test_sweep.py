import json
import shutil
from pathlib import Path

import pytest
import torch
from trillium.errors import ConfigError
from trillium.merging.config import MergeConfig
from trillium.merging.merge import open_base
from trillium.merging.sweep import sweep
from trillium.policies.adapters import add_adapter, save_adapter
from trillium.policies.config import LoraSettings
from trillium.policies.tiny import tiny_policy, tiny_tokenizer


def make_model(folder: Path, *, seed: int) -> Path:
    tiny_policy(seed=seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def make_adapter(folder: Path, base: Path, *, seed: int) -> Path:
    policy = add_adapter(tiny_policy(), LoraSettings(r=2), base_name=str(base), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, 0.1, generator=generator)
    save_adapter(policy, folder)
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    texts = (("user", "prompt", "say"), ("assistant", "chosen", "red"))
    row = {key: [{"role": role, "content": text}] for role, key, text in texts}
    row["rejected"] = [{"role": "assistant", "content": "sun"}]
    (tmp_path / "set.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path / "set.jsonl"


@pytest.mark.parametrize("change", ["weights", "template"])
def test_adapters_on_another_base_of_the_same_name_are_measured_anew(
    tmp_path: Path, pairs: Path, change: str
) -> None:
    base = make_model(tmp_path / "base", seed=0)
    inputs = [make_adapter(tmp_path / name, base, seed=i) for i, name in enumerate("ab")]
    config = MergeConfig(inputs=tuple(inputs))

    def run(output: str) -> list[object]:
        rows = sweep(config, [pairs], 2, tmp_path / output, base=None, is_adapter=True)
        return [row["sets"] for row in rows]

    before = run("out")
    if change == "weights":
        tiny_policy(seed=7).save_pretrained(base)
    else:
        template = base / "chat_template.jinja"
        template.write_text("<|im_start|>system\nBe brief.<|im_end|>\n" + template.read_text())
    after = run("out")
    assert after == run("fresh") != before
    stamp = (tmp_path / "out" / "sweep.jsonl").stat().st_mtime_ns
    assert run("out") == after
    assert (tmp_path / "out" / "sweep.jsonl").stat().st_mtime_ns == stamp


def test_models_over_another_base_of_the_same_name_are_measured_anew(
    tmp_path: Path, pairs: Path
) -> None:
    base = make_model(tmp_path / "base", seed=0)
    inputs = tuple(make_model(tmp_path / name, seed=i + 1) for i, name in enumerate("ab"))
    config = MergeConfig(inputs=inputs, method="ties", base=str(base))

    def run(output: str) -> list[object]:
        found = open_base(config)
        rows = sweep(config, [pairs], 2, tmp_path / output, base=found, is_adapter=False)
        return [row["sets"] for row in rows]

    before = run("out")
    tiny_policy(seed=7).save_pretrained(base)
    assert run("out") == run("fresh") != before


def test_a_set_of_another_name_has_its_own_column(tmp_path: Path, pairs: Path) -> None:
    base = make_model(tmp_path / "base", seed=0)
    inputs = [make_adapter(tmp_path / name, base, seed=i) for i, name in enumerate("ab")]
    other = Path(shutil.copy(pairs, tmp_path / "other.jsonl"))
    for path in (pairs, other):
        rows = sweep(
            MergeConfig(inputs=tuple(inputs)),
            [path],
            2,
            tmp_path / "out",
            base=None,
            is_adapter=True,
        )
        assert [list(row["sets"]) for row in rows] == [[path.stem]] * 2


def test_an_adapter_without_the_name_of_its_base_is_refused(tmp_path: Path, pairs: Path) -> None:
    base = make_model(tmp_path / "base", seed=0)
    inputs = [make_adapter(tmp_path / name, base, seed=i) for i, name in enumerate("ab")]
    path = inputs[0] / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": None}))
    config = MergeConfig(inputs=tuple(inputs))
    with pytest.raises(ConfigError, match="does not name its base; give it with --base"):
        sweep(config, [pairs], 2, tmp_path / "out", base=None, is_adapter=True)
