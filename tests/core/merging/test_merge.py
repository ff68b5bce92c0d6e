import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from trillium.errors import ConfigError, DataError
from trillium.merging import sweep as sweep_module
from trillium.merging.adapters import MergedAdapter, load_adapters, merge_adapters
from trillium.merging.cli_text import parse
from trillium.merging.config import MergeConfig
from trillium.merging.merge import are_adapters, merge
from trillium.merging.methods import slerp, ties
from trillium.merging.sweep import sweep
from trillium.policies.adapters import add_adapter, load_adapter, save_adapter
from trillium.policies.config import LoraSettings
from trillium.policies.tiny import tiny_policy, tiny_tokenizer

WORDS = ["red", "green", "blue", "sun", "moon"]
KEY = "base_model.model.model.layers.1.mlp.up_proj"


def make_adapter(folder: Path, *, seed: int, r: int = 4, base: str = "tiny") -> Path:
    policy = add_adapter(tiny_policy(), LoraSettings(r=r, alpha=8), base_name=base, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, 0.1, generator=generator)
    save_adapter(policy, folder)
    return folder


@pytest.fixture
def ends(tmp_path: Path) -> tuple[Path, Path]:
    return (
        make_adapter(tmp_path / "a", seed=1),
        make_adapter(tmp_path / "b", seed=2, r=6),
    )


def update_of(tensors: dict[str, torch.Tensor], scaling: float) -> torch.Tensor:
    b, a = tensors[f"{KEY}.lora_B.weight"], tensors[f"{KEY}.lora_A.weight"]
    return scaling * b.double() @ a.double()


def saved_update(folder: Path) -> torch.Tensor:
    settings = json.loads((folder / "adapter_config.json").read_text())
    scaling = settings["lora_alpha"] / settings["r"]
    return update_of(load_file(folder / "adapter_model.safetensors"), scaling)


def merged(ends: tuple[Path, Path], **options: object) -> MergedAdapter:
    config = MergeConfig.model_validate({"inputs": ends, **options})
    return merge_adapters(config, load_adapters(config.inputs))


def test_the_linear_merge_of_adapters_is_that_of_their_updates(ends: tuple[Path, Path]) -> None:
    found = merged(ends, weights=(0.3, 0.7))
    expected = 0.3 * saved_update(ends[0]) + 0.7 * saved_update(ends[1])
    assert torch.allclose(update_of(found.tensors, 1.0), expected, atol=1e-7)
    assert found.settings["r"] == found.settings["lora_alpha"] == 10
    assert found.kept == 1


def test_a_merged_adapter_computes_what_its_parts_compute_together(
    ends: tuple[Path, Path], tmp_path: Path
) -> None:
    merge(MergeConfig(inputs=ends, weights=(0.5, 0.5)), tmp_path / "out")
    ids = torch.arange(4, 24)[None]
    policy = load_adapter(tiny_policy(), tmp_path / "out", base_name="tiny").eval()
    assert isinstance(policy, PeftModel)

    both = tiny_policy()
    for folder in ends:
        settings = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
        for name, module in both.named_modules():
            key = f"base_model.model.{name}"
            if f"{key}.lora_A.weight" in tensors:
                b, a = tensors[f"{key}.lora_B.weight"], tensors[f"{key}.lora_A.weight"]
                module.weight.data += 0.5 * settings["lora_alpha"] / settings["r"] * (b @ a)
    with torch.no_grad():
        assert torch.allclose(policy(ids).logits, both(ids).logits, atol=1e-4)


@pytest.mark.parametrize("method", ["linear", "slerp"])
@pytest.mark.parametrize("end", [0, 1])
def test_the_ends_are_the_inputs_bit_by_bit(
    ends: tuple[Path, Path], tmp_path: Path, method: str, end: int
) -> None:
    config = MergeConfig.model_validate({"inputs": ends, "method": method}).at(float(end))
    merge(config, tmp_path / "out")
    name = "adapter_model.safetensors"
    ours, theirs = load_file(tmp_path / "out" / name), load_file(ends[end] / name)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    kept = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert kept == json.loads((ends[end] / "adapter_config.json").read_text())


def test_slerp_of_adapters_is_slerp_of_their_updates(ends: tuple[Path, Path]) -> None:
    found = merged(ends, method="slerp", weights=(0.6, 0.4))
    expected = slerp(saved_update(ends[0]), saved_update(ends[1]), 0.4)
    assert torch.allclose(update_of(found.tensors, 1.0), expected, atol=1e-6)


def test_ties_at_full_rank_is_ties_of_the_updates(ends: tuple[Path, Path]) -> None:
    found = merged(ends, method="ties", density=0.4, rank=32)
    updates = [saved_update(folder).float() for folder in ends]
    expected = ties(updates, [0.5, 0.5], density=0.4)
    assert torch.allclose(update_of(found.tensors, 1.0).float(), expected, atol=1e-6)
    assert found.kept == pytest.approx(1.0)


def test_a_smaller_rank_keeps_what_it_says(ends: tuple[Path, Path]) -> None:
    full = merged(ends, method="ties", density=0.4, rank=32)
    cut = merged(ends, method="ties", density=0.4, rank=5)
    lost = total = 0.0
    for key in full.tensors:
        if "lora_A" in key:
            left = key.replace("lora_A", "lora_B")
            whole = full.tensors[left].double() @ full.tensors[key].double()
            part = cut.tensors[left].double() @ cut.tensors[key].double()
            lost += float((whole - part).square().sum())
            total += float(whole.square().sum())
    assert 0.3 < cut.kept < 0.99
    assert cut.kept == pytest.approx(1 - lost / total, abs=1e-6)


def test_dare_repeats_and_depends_on_its_seed(ends: tuple[Path, Path]) -> None:
    first, again, other = (merged(ends, method="dare_ties", seed=seed) for seed in (1, 1, 2))
    key = f"{KEY}.lora_A.weight"
    assert torch.equal(first.tensors[key], again.tensors[key])
    assert not torch.equal(first.tensors[key], other.tensors[key])


def make_model(folder: Path, *, seed: int, n_layers: int = 2) -> Path:
    tiny_policy(seed=seed, n_layers=n_layers).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_whole_models_merge_tensor_by_tensor(tmp_path: Path) -> None:
    inputs = (make_model(tmp_path / "a", seed=1), make_model(tmp_path / "b", seed=2))
    merge(MergeConfig(inputs=inputs, weights=(0.25, 0.75)), tmp_path / "out")
    name = "model.safetensors"
    a, b, out = (load_file(folder / name) for folder in (*inputs, tmp_path / "out"))
    assert out.keys() == a.keys()
    assert all(torch.allclose(out[key], 0.25 * a[key] + 0.75 * b[key]) for key in a)
    assert (tmp_path / "out/tokenizer.json").read_bytes() == (
        inputs[0] / "tokenizer.json"
    ).read_bytes()
    merge(MergeConfig(inputs=inputs, method="slerp").at(1.0), tmp_path / "end")
    end = load_file(tmp_path / "end" / name)
    assert all(torch.equal(end[key], b[key]) for key in b)
    assert not list(tmp_path.glob(".*.part"))


def test_ties_of_models_adds_merged_updates_to_the_base(tmp_path: Path) -> None:
    inputs = (make_model(tmp_path / "a", seed=1), make_model(tmp_path / "b", seed=2))
    base = make_model(tmp_path / "base", seed=0)
    config = MergeConfig(inputs=inputs, method="ties", density=0.5, base=str(base))
    merge(config, tmp_path / "out")
    name, key = "model.safetensors", "model.layers.0.mlp.up_proj.weight"
    start, a, b, out = (load_file(f / name)[key] for f in (base, *inputs, tmp_path / "out"))
    expected = start + ties([a - start, b - start], [0.5, 0.5], density=0.5)
    assert torch.allclose(out, expected, atol=1e-6)
    with pytest.raises(ConfigError, match="set --base"):
        merge(config.model_copy(update={"base": None}), tmp_path / "none")


def test_the_base_of_other_models_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    inputs = (make_model(tmp_path / "a", seed=1), make_model(tmp_path / "b", seed=2))
    config = MergeConfig(inputs=inputs, method="ties", density=0.5)
    base = make_model(tmp_path / "base", seed=0)
    path, key = base / "model.safetensors", "model.layers.0.mlp.up_proj.weight"
    whole = load_file(path)
    narrow = whole | {key: whole[key][:, :-1].contiguous()}
    for tensors, said in (
        ({name: value for name, value in whole.items() if name != key}, f"{key} is none there"),
        (narrow, rf"is not the base of \S+ \({key} is \(\d+, \d+\) there"),
    ):
        save_file(tensors, path)
        with pytest.raises(ConfigError, match=said):
            merge(config.model_copy(update={"base": str(base)}), tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def write_pairs(path: Path, n: int = 6) -> Path:
    rows = [
        {"prompt": f"say {WORDS[i % 5]}: ", "chosen": WORDS[i % 3], "rejected": WORDS[(i + 2) % 5]}
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_sweep_measures_the_ends_and_continues_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_model(tmp_path / "tiny", seed=0)
    adapters = (
        make_adapter(tmp_path / "a", seed=1, base=str(base)),
        make_adapter(tmp_path / "b", seed=2, base=str(base)),
    )
    # Named as a field of the rows is: the two must not meet.
    pairs = write_pairs(tmp_path / "kept.jsonl")
    config = MergeConfig(inputs=adapters)

    def run(output: Path) -> list[dict[str, object]]:
        return sweep(config, [pairs], 3, output, base=None, is_adapter=True)

    rows = run(tmp_path / "whole")
    assert [row["weight"] for row in rows] == [0.0, 0.5, 1.0]
    same = sweep(
        MergeConfig(inputs=(adapters[1], adapters[0])),
        [pairs],
        2,
        tmp_path / "back",
        base=None,
        is_adapter=True,
    )
    assert same[0]["sets"] == rows[2]["sets"]
    assert same[1]["sets"] == rows[0]["sets"] != rows[1]["sets"]

    measure, calls = sweep_module.measure_sets, []

    def killed(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(sweep_module, "measure_sets", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed")
    run(tmp_path / "killed")
    names = ("sweep.jsonl", "report.html")
    for name in names:
        ours, theirs = tmp_path / "killed" / name, tmp_path / "whole" / name
        assert ours.read_bytes() == theirs.read_bytes()
    assert (tmp_path / "whole/weight-0.5/adapter_config.json").is_file()


def test_inputs_that_do_not_belong_together_are_refused(
    ends: tuple[Path, Path], tmp_path: Path
) -> None:
    other = make_adapter(tmp_path / "other", seed=3, base="another")
    with pytest.raises(ConfigError, match="was trained on another"):
        merged((ends[0], other))
    model = make_model(tmp_path / "model", seed=1)
    with pytest.raises(ConfigError, match="is a model"):
        are_adapters(MergeConfig(inputs=(ends[0], model)))
    with pytest.raises(ConfigError, match="there is no such folder"):
        are_adapters(MergeConfig(inputs=(ends[0], tmp_path / "nowhere")))
    deeper = make_model(tmp_path / "deeper", seed=1, n_layers=3)
    with pytest.raises(ConfigError, match=r"layer.* and .* has"):
        merge(MergeConfig(inputs=(model, deeper)), tmp_path / "out")
    with pytest.raises(ConfigError, match="exists"):
        merge(MergeConfig(inputs=ends), tmp_path / "model")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        merge(MergeConfig(inputs=(model, model)), tmp_path / "file" / "out")


def test_a_sweep_without_pairs_or_points_is_refused(
    ends: tuple[Path, Path], tmp_path: Path
) -> None:
    config, pairs = MergeConfig(inputs=ends), write_pairs(tmp_path / "pairs.jsonl")
    with pytest.raises(DataError, match="there is no such file"):
        sweep(config, [tmp_path / "no.jsonl"], 3, tmp_path / "out", base=None, is_adapter=True)
    with pytest.raises(ConfigError, match="two or more points, not 2 and 1"):
        sweep(config, [pairs], 1, tmp_path / "out", base=None, is_adapter=True)


def test_what_an_adapter_holds_beside_linear_factors_is_never_dropped(
    ends: tuple[Path, Path],
) -> None:
    path = ends[1] / "adapter_model.safetensors"
    key = "base_model.model.model.embed_tokens.lora_embedding_A"
    save_file({**load_file(path), key: torch.ones(4, 8)}, path)
    with pytest.raises(ConfigError, match=f"holds {key}"):
        merged(ends)


def test_damaged_adapters_are_refused(ends: tuple[Path, Path]) -> None:
    path = ends[1] / "adapter_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="cannot be read"):
        merged(ends)
    path.write_bytes(whole)
    (ends[1] / "adapter_config.json").write_text("{")
    with pytest.raises(ConfigError, match="is no PEFT configuration"):
        merged(ends)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "soup"}, "--method soup"),
        ({"density": 0}, "--density 0"),
        ({"method": "slerp", "weights": "0.5,0.7"}, "1 - t and t"),
        ({"weights": "0.5"}, "1 weights for 2 inputs"),
        ({"weights": "a,b"}, "no list of numbers"),
        ({"weights": "nan,1"}, "not all finite"),
        ({"weights": "0,0"}, "all weights are 0"),
        ({"inputs": [Path("a")]}, "one input"),
        ({"weights": "0.5,0.5", "weight": 0.5}, "exclude one another"),
        ({"method": "slerp", "weight": 1.5}, "between 0 and 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: dict[str, object], message: str
) -> None:
    weight, weights = options.pop("weight", None), options.pop("weights", None)
    with pytest.raises(ConfigError, match=message):
        parse({"inputs": [Path("a"), Path("b")], **options}, weight, weights)  # type: ignore[arg-type]
