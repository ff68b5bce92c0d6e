from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    OPTConfig,
    OPTForCausalLM,
)
from trillium.errors import BackendError, ConfigError
from trillium.layouts import collate
from trillium.policies import load
from trillium.policies.adapters import adapter_parameters, has_effect, save_adapter
from trillium.policies.config import LoraSettings, PolicyConfig
from trillium.policies.load import checkpoint_activations, load_policy, resolve_dtype
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium.policies.tokenizer import load_tokenizer
from trillium.scoring.flex import ATTENTION
from trillium.scoring.scores import score
from trillium.trees import TokenPath, TokenTree

CPU = torch.device("cpu")
TREES = [
    TokenTree.from_paths(
        str(index),
        [
            TokenPath((5, 6, index, *ids), (False,) * 3 + (True,) * 3)
            for ids in ((8, 9, 2), (9, 7, 2))
        ],
    )
    for index in range(10, 14)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_policy().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def configure(folder: Path, **changes: object) -> PolicyConfig:
    return PolicyConfig.model_validate(
        {"base": str(folder), "dtype": "float32", "lora": {"r": 4}, **changes}
    )


def train(model: nn.Module, learning_rate: float, n_steps: int = 5) -> None:
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=learning_rate, weight_decay=0.0
    )
    batch = collate(TREES, layout="shared", pad_id=3)
    for _ in range(n_steps):
        logps = score(model, batch).logps
        (logps[1::2] - logps[0::2]).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_folder_loads_with_a_new_adapter_that_has_no_effect(folder: Path) -> None:
    policy = load_policy(configure(folder), device="cpu")
    ids = torch.arange(5, 15)[None]
    assert torch.equal(policy.model(input_ids=ids).logits, tiny_policy()(input_ids=ids).logits)
    assert not has_effect(policy.model)
    assert policy.folder == folder
    assert (policy.dtype, policy.quantisation) == (torch.float32, "none")
    assert policy.tokenizer.eos_token == "<|im_end|>"
    trained = {p for p in policy.model.parameters() if p.requires_grad}
    assert trained == set(adapter_parameters(policy.model).values())


def test_the_base_has_no_dropout_of_its_own(tmp_path: Path) -> None:
    """Older models declare dropout; a policy that equals its reference must score like it."""
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2}
    config = OPTConfig(vocab_size=260, dropout=0.5, num_attention_heads=4, **sizes)
    OPTForCausalLM(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    model = load_policy(configure(tmp_path)).model
    batch = collate(TREES, layout="padded", pad_id=3)
    model.eval()
    expected = score(model, batch).logps
    model.train()
    assert torch.equal(score(model, batch).logps, expected)


def test_a_model_without_fused_attention_loads(tmp_path: Path) -> None:
    config = BloomConfig(vocab_size=260, hidden_size=32, n_layer=2, n_head=4)
    BloomForCausalLM(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert load_policy(configure(tmp_path)).model.config._attn_implementation == "eager"


def test_saved_adapter_is_where_training_continues(folder: Path, tmp_path: Path) -> None:
    first = load_policy(configure(folder), device="cpu")
    train(first.model, 1e-2)
    save_adapter(first.model, tmp_path / "adapter")
    default = LoraSettings()
    continued = configure(folder, adapter=tmp_path / "adapter", lora=default)
    second = load_policy(continued, device="cpu")
    batch = collate(TREES, layout="shared", pad_id=3)
    assert torch.equal(score(second.model, batch).logps, score(first.model, batch).logps)
    assert all(p.requires_grad for p in adapter_parameters(second.model).values())


@pytest.mark.parametrize("learning_rate", [5e-6, 5e-5])
@pytest.mark.parametrize(
    ("dtype", "quantisation"), [("bfloat16", "none"), ("float32", "nf4"), ("bfloat16", "nf4")]
)
def test_every_trainable_entry_moves(
    folder: Path, dtype: str, quantisation: str, learning_rate: float
) -> None:
    """T21: float32 adapters take steps of 5e-6, which bfloat16 ones would round away."""
    if quantisation == "nf4":
        pytest.importorskip("bitsandbytes")
    config = configure(folder, dtype=dtype, quantisation=quantisation)
    policy = load_policy(config, device="cpu")
    for key, parameter in adapter_parameters(policy.model).items():
        if "lora_B" in key:
            # From B = 0 the first gradient of A is zero, whatever the precision.
            nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(0))
    before = {key: p.detach().clone() for key, p in adapter_parameters(policy.model).items()}
    train(policy.model, learning_rate)
    n_moved = n_entries = 0
    for key, parameter in adapter_parameters(policy.model).items():
        assert parameter.dtype == torch.float32
        n_moved += int((parameter != before[key]).sum())
        n_entries += parameter.numel()
    assert n_moved == n_entries


def test_nf4_on_cpu_scores_alike_before_and_between_gradients(folder: Path) -> None:
    """Inference in eval mode may repack 4-bit weights; training afterwards must not notice."""
    pytest.importorskip("bitsandbytes")
    policy = load_policy(configure(folder, dtype="bfloat16", quantisation="nf4"), device="cpu")
    batch = collate(TREES, layout="shared", pad_id=3)
    with_gradient = score(policy.model.train(), batch).logps.detach()
    with torch.no_grad():
        without = score(policy.model.eval(), batch).logps
    again = score(policy.model.train(), batch).logps
    again.sum().backward()
    torch.testing.assert_close(again.detach(), with_gradient, atol=0, rtol=0)
    assert (without - with_gradient).abs().max() < 0.5
    assert all(torch.isfinite(p.grad).all() for p in adapter_parameters(policy.model).values())


def test_auto_precision_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, expected in (
        ({"avx512f"}, torch.float32),
        ({"avx512f", "avx512_bf16"}, torch.bfloat16),
        ({"amx_bf16"}, torch.bfloat16),
    ):
        monkeypatch.setattr(load, "cpu_flags", lambda flags=flags: frozenset(flags))
        assert resolve_dtype("auto", CPU) == expected
    assert resolve_dtype("float32", CPU) == torch.float32


def test_recomputed_activations_give_the_same_gradients(folder: Path) -> None:
    found = []
    for is_asked in (False, True):
        policy = load_policy(configure(folder), device="cpu")
        if is_asked:
            checkpoint_activations(policy.model)
            assert policy.model.get_base_model().is_activation_checkpointing
        policy.model.train()
        score(policy.model, collate(TREES, layout="shared", pad_id=3)).logps.sum().backward()
        found.append([p.grad for p in adapter_parameters(policy.model).values()])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_missing_pieces_are_named_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        load_policy(configure(tmp_path / "nowhere"), device="cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty: holds no tokenizer"):
        load_policy(configure(tmp_path / "empty"), device="cpu")
    (folder / "config.json").rename(folder / "moved.json")
    with pytest.raises(ConfigError, match="holds no model"):
        load_policy(configure(folder), device="cpu")
    (folder / "moved.json").rename(folder / "config.json")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="the model cannot be loaded") as caught:
        load_policy(configure(folder), device="cpu")
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_reported_as_such(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ConfigError, match="the model cannot be loaded"):
        load_policy(configure(folder), device="cpu")


def test_nf4_without_bitsandbytes_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"install trillium\[qlora\]"):
        load_policy(configure(folder, quantisation="nf4"), device="cpu")


def test_what_a_machine_has_not_is_known_before_a_model_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "none"
    assert load.check_policy(configure(missing), device="cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"policy\.attention=flex needs a GPU"):
        load.check_policy(configure(missing, attention="flex"), device="cpu")
    with pytest.raises(ConfigError, match=r"remove policy\.lora"):
        load.check_policy(configure(missing, adapter=missing), device="cpu")
    monkeypatch.setattr(load.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"install trillium\[qlora\]"):
        load.check_policy(configure(missing, quantisation="nf4"), device="cpu")


def test_targets_can_be_named(folder: Path) -> None:
    config = configure(folder, lora=LoraSettings(r=2, targets=("q_proj", "v_proj")))
    policy = load_policy(config, device="cpu")
    assert len(adapter_parameters(policy.model)) == 2 * 2 * 2
    wrong = configure(folder, lora=LoraSettings(targets=("query",)))
    with pytest.raises(ConfigError, match=r"policy\.lora\.targets: .*query.* does not fit"):
        load_policy(wrong, device="cpu")


def test_adapter_and_settings_for_a_new_one_contradict_each_other(folder: Path) -> None:
    """T15: what is accepted is honoured; rank 4 cannot be, when the adapter has its own rank."""
    with pytest.raises(ConfigError, match=r"remove policy\.lora"):
        load_policy(configure(folder, adapter=folder / "adapter"), device="cpu")


def test_an_unreachable_hub_is_a_failure_of_the_machine_with_a_remedy() -> None:
    """Tests run with HF_HUB_OFFLINE, as a machine without network would."""
    with pytest.raises(BackendError, match=r"is not on this disk .* name a folder that holds it"):
        load_policy(PolicyConfig(base="nobody/nothing"), device="cpu")


def test_a_commit_of_the_hub_is_the_one_that_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    place, cpu = tmp_path / "models--owner--tiny", torch.device("cpu")
    commits = {seed: str(seed) * 40 for seed in (1, 2)}
    for seed, commit in commits.items():
        tiny_policy(seed=seed).save_pretrained(place / "snapshots" / commit)
        tiny_tokenizer().save_pretrained(place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commits[2])
    for seed, commit in commits.items():
        found = load.load_base("owner/tiny", torch.float32, "none", cpu, revision=commit)
        expected = tiny_policy(seed=seed).get_input_embeddings().weight
        assert torch.equal(found.get_input_embeddings().weight, expected)
        assert load_tokenizer("owner/tiny", revision=commit).vocab_size > 0
    with pytest.raises(BackendError, match="owner/tiny"):
        load.load_base("owner/tiny", torch.float32, "none", cpu, revision="3" * 40)


def test_weights_that_are_not_finite_are_named(folder: Path) -> None:
    model = tiny_policy()
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(
        ConfigError, match=r"in 1 tensors, the first is model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        load_policy(configure(folder), device="cpu")


def test_an_unknown_kind_of_model_is_told_once(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "config.json").write_text('{"model_type": "unheard_of"}')
    with pytest.raises(ConfigError, match="has model type `unheard_of`"):
        load_policy(configure(folder), device="cpu")
    assert capfd.readouterr().err == ""


def test_flex_attention_that_cannot_be_had_is_refused_and_never_replaced() -> None:
    """What is asked for by name is given or refused; only auto chooses."""
    wanted, gpu = tiny_policy().config, torch.device("cuda")
    with pytest.raises(ConfigError, match="needs a GPU and none is visible"):
        load._choose_attention(wanted, "flex", torch.device("cpu"))
    capped = Gemma2Config()
    with pytest.raises(ConfigError, match="a model of type gemma2 cannot be given it"):
        load._choose_attention(capped, "flex", gpu)
    found = [load._choose_attention(wanted, each, gpu) for each in ("auto", "flex", "sdpa")]
    assert found == [ATTENTION, ATTENTION, "sdpa"]
    assert load._choose_attention(capped, "auto", gpu) == "eager"
    assert load._choose_attention(wanted, "auto", torch.device("cpu")) == "sdpa"
