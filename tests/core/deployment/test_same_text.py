"""Adapter, merged model, GGUF model and GGUF adapter write the same greedy text."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trillium.deployment.gguf_export import export_adapter, export_model
from trillium.deployment.merge import merge_adapter
from trillium.errors import ConfigError
from trillium.gguf_model import convert_gguf
from trillium.policies.config import PolicyConfig
from trillium.policies.load import load_policy

PROMPTS = ["def add(a, b):", "The sum of 12 and 30 is", "one", "    return  7 + é"]
N_TOKENS = 24


@torch.inference_mode()
def write(model, tokenizer, prompts=PROMPTS):
    """Greedy tokens and the logits of the last prompt position, per prompt."""
    tokens, logits = [], []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
        start = ids.shape[1]
        logits.append(model(ids).logits[0, -1])
        for _ in range(N_TOKENS):
            ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
        tokens.append(ids[0, start:].tolist())
    return tokens, torch.stack(logits)


def load_folder(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder)


def load_gguf(path, folder):
    folder.mkdir()
    convert_gguf(path, folder)
    return load_folder(folder)


def read_arrays(path):
    return {tensor.name: torch.tensor(tensor.data) for tensor in gguf.GGUFReader(path).tensors}


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def case(request, tmp_path_factory, make_base, make_adapter):
    """Base, adapter, and what the adapter writes on it."""
    folder = tmp_path_factory.mktemp(request.param)
    base = make_base(folder / "base", request.param)
    adapter = make_adapter(folder / "adapter", base, kind=request.param)
    policy = load_policy(
        PolicyConfig(base=str(base), dtype="float32", adapter=adapter), device="cpu"
    )
    merge_adapter(adapter, folder / "merged")
    return folder, policy, write(policy.model, policy.tokenizer)


def test_the_adapter_changes_the_text_at_all(case):
    folder, _, (tokens, _) = case
    assert write(*load_folder(folder / "base"))[0] != tokens


def test_the_merged_model_writes_what_the_adapter_writes(case):
    folder, _, (tokens, logits) = case
    merged = write(*load_folder(folder / "merged"))
    assert merged[0] == tokens
    torch.testing.assert_close(merged[1], logits, rtol=1e-4, atol=1e-4)


def test_the_model_as_gguf_writes_it_too_and_splits_text_alike(case, tmp_path):
    folder, policy, (tokens, logits) = case
    export_model(folder / "merged", tmp_path / "model.gguf", kind="f32")
    model, tokenizer = load_gguf(tmp_path / "model.gguf", tmp_path / "read")
    for text in [*PROMPTS, "<|im_start|>user\n  12345 x\n\n y<|im_end|>"]:
        assert tokenizer(text).input_ids == policy.tokenizer(text).input_ids
    assert tokenizer.chat_template == policy.tokenizer.chat_template
    read = write(model, tokenizer)
    assert read[0] == tokens
    torch.testing.assert_close(read[1], logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "error"), [("f16", 2e-3), ("bf16", 2e-2), ("q8_0", 5e-2)])
def test_what_rounding_costs_is_bounded(case, tmp_path, kind, error):
    folder, _, (_, logits) = case
    export_model(folder / "merged", tmp_path / "model.gguf", kind=kind)
    rounded = write(*load_gguf(tmp_path / "model.gguf", tmp_path / "read"))[1]
    relative = (rounded - logits).norm() / logits.norm()
    assert 0 < relative < error


def test_the_adapter_as_gguf_is_the_same_update(case, tmp_path):
    folder, _, _ = case
    export_adapter(folder / "adapter", tmp_path / "adapter.gguf")
    for name in ("base", "merged"):
        export_model(folder / name, tmp_path / f"{name}.gguf", kind="f32")
    base, merged, update = (
        read_arrays(tmp_path / f"{name}.gguf") for name in ("base", "merged", "adapter")
    )
    fields = gguf.GGUFReader(tmp_path / "adapter.gguf").fields
    alpha = fields["adapter.lora.alpha"].contents()
    assert fields["general.type"].contents() == "adapter"
    adapted = {name.removesuffix(".lora_a") for name in update if name.endswith(".lora_a")}
    assert len(adapted) == 14
    for name, weight in base.items():
        if name in adapted:
            a, b = update[f"{name}.lora_a"], update[f"{name}.lora_b"]
            weight = weight + alpha / len(a) * (b @ a)  # what llama.cpp computes
        torch.testing.assert_close(weight, merged[name], rtol=1e-5, atol=1e-5)


def test_rslora_is_scaled_as_in_training(tmp_path, llama_base, make_adapter):
    adapter = make_adapter(tmp_path / "adapter", llama_base, rslora=True)
    policy = load_policy(
        PolicyConfig(base=str(llama_base), dtype="float32", adapter=adapter), device="cpu"
    )
    merge_adapter(adapter, tmp_path / "merged")
    merged = write(*load_folder(tmp_path / "merged"))
    tokens, logits = write(policy.model, policy.tokenizer)
    assert merged[0] == tokens
    torch.testing.assert_close(merged[1], logits, rtol=1e-4, atol=1e-4)
    export_adapter(adapter, tmp_path / "adapter.gguf")
    fields = gguf.GGUFReader(tmp_path / "adapter.gguf").fields
    assert fields["adapter.lora.alpha"].contents() / 4 == pytest.approx(8 / 4**0.5)


def test_a_4_bit_base_is_unpacked_and_not_replaced_by_the_dense_one(tmp_path, llama_base, adapter):
    if importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    config = PolicyConfig(
        base=str(llama_base), dtype="float32", quantisation="nf4", adapter=adapter
    )
    policy = load_policy(config, device="cpu")
    merge_adapter(adapter, tmp_path / "merged", quantisation="nf4", trained_in="float32")
    merge_adapter(adapter, tmp_path / "dense")
    trained = write(policy.model, policy.tokenizer)[1]
    merged, dense = (write(*load_folder(tmp_path / name))[1] for name in ("merged", "dense"))
    torch.testing.assert_close(merged, trained, rtol=1e-3, atol=1e-3)
    assert (dense - trained).norm() > 20 * (merged - trained).norm()


def test_the_commit_that_an_adapter_pins_is_merged(tmp_path, llama_base, adapter, make_base):
    """The hub's cache holds two commits of a base, and the adapter does not ask for the newest."""
    pinned, newest = "a" * 40, "b" * 40
    cache = tmp_path / "hub" / "models--org--base"
    shutil.copytree(llama_base, cache / "snapshots" / pinned)
    newer = make_base(cache / "snapshots" / newest)
    model, _ = load_folder(newer)
    model.lm_head.weight.data.neg_()
    model.save_pretrained(newer)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(newest)
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    facts = json.loads((folder / "adapter_config.json").read_text())
    facts |= {"base_model_name_or_path": "org/base", "revision": pinned}
    (folder / "adapter_config.json").write_text(json.dumps(facts))
    # A mirror has commits of its own.
    mirror = tmp_path / "hub" / "models--mirror--base"
    shutil.copytree(llama_base, mirror / "snapshots" / newest)
    shutil.copytree(cache / "refs", mirror / "refs")
    command = "from trillium.deployment.cli import app; app()"
    for output, options in (("merged", ()), ("mirrored", ("--base", "mirror/base"))):
        subprocess.run(
            [sys.executable, "-c", command, "merge", folder, tmp_path / output, *options],
            env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
            check=True,
        )
    merge_adapter(adapter, tmp_path / "expected")
    expected, *merged = (
        load_file(tmp_path / name / "model.safetensors")
        for name in ("expected", "merged", "mirrored")
    )
    for found in merged:
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_llama_cpp_writes_the_same_text(case, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    folder, policy, (tokens, _) = case
    for name in ("base", "merged"):
        export_model(folder / name, tmp_path / f"{name}.gguf", kind="f32")
    export_adapter(folder / "adapter", tmp_path / "adapter.gguf")
    with_adapter = {"lora_path": str(tmp_path / "adapter.gguf")}
    for model, fields in (("merged", {}), ("base", with_adapter)):
        engine = llama_cpp.Llama(
            str(tmp_path / f"{model}.gguf"), n_ctx=256, verbose=False, logits_all=True, **fields
        )
        for prompt, expected in zip(PROMPTS, tokens, strict=True):
            ids = policy.tokenizer(prompt, add_special_tokens=False).input_ids
            assert engine.tokenize(prompt.encode(), add_bos=False, special=True) == ids
            engine.reset()
            written = []
            for token in engine.generate(ids, temp=0.0, repeat_penalty=1.0):
                written.append(token)
                if len(written) == len(expected):
                    break
            assert written == expected


def test_what_cannot_be_exported_says_what_to_do(tmp_path, llama_base: Path, adapter):
    def changed(name, path, **fields):
        folder = tmp_path / name
        shutil.copytree(llama_base, folder)
        facts = json.loads((folder / path).read_text())
        (folder / path).write_text(json.dumps({**facts, **fields}))
        return folder

    scaled = {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}}
    for folder, said in (
        (changed("gemma", "config.json", model_type="gemma2"), "is a gemma2"),
        (changed("rope", "config.json", **scaled), "llama3"),
        (changed("split", "tokenizer.json", pre_tokenizer={"type": "Whitespace"}), "Whitespace"),
    ):
        with pytest.raises(ConfigError, match=said):
            export_model(folder, tmp_path / "out.gguf")
    with pytest.raises(ConfigError, match="is not empty"):
        merge_adapter(adapter, llama_base)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        merge_adapter(adapter, tmp_path / "file" / "merged")
