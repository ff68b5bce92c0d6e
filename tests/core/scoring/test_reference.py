from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import nn
from trillium.errors import ConfigError
from trillium.layouts import collate
from trillium.policies.adapters import adapter_parameters, add_adapter, save_adapter
from trillium.policies.config import LoraSettings, PolicyConfig
from trillium.policies.load import load_policy
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium.scoring.cache import LogpCache
from trillium.scoring.fingerprint import fingerprint_base
from trillium.scoring.forward import open_model
from trillium.scoring.reference import (
    AdapterReference,
    BaseReference,
    CachedReference,
    SnapshotReference,
    open_reference,
)
from trillium.scoring.scores import score
from trillium.tree_batch import TreeBatch
from trillium.trees import Layout, TokenPath, TokenTree


def pair(index: int, prompt: tuple[int, ...] = (5, 6, 7)) -> TokenTree:
    completions = ((10 + index, 20, 2), (10 + index, 21, 22, 23 + index % 3, 2))
    return TokenTree.from_paths(
        f"tree {index}",
        [
            TokenPath(prompt + ids, (False,) * len(prompt) + (True,) * len(ids))
            for ids in completions
        ],
    )


TREES = [pair(index) for index in range(9)]


def batch_up(
    trees: Sequence[TokenTree], size: int = 2, layout: Layout = "shared"
) -> list[TreeBatch]:
    parts = [trees[start : start + size] for start in range(0, len(trees), size)]
    return [collate(part, layout=layout, pad_id=3, row_tokens=64) for part in parts]


def build(
    *,
    r: int = 4,
    seed: int = 0,
    spread: float = 0.2,
    dropout: float = 0.0,
    dtype: torch.dtype = torch.float32,
    base_seed: int = 0,
) -> PeftModel:
    lora = LoraSettings(r=r, dropout=dropout)
    base = tiny_policy(dtype=dtype, seed=base_seed)
    policy = add_adapter(base, lora, base_name="tiny", seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name and spread:
            nn.init.normal_(parameter, std=spread, generator=generator)
    return policy


def test_base_reference_is_the_base_model_whatever_the_adapter_does() -> None:
    policy = build(dropout=0.5).train()
    (batch,) = batch_up(TREES, 9)
    with torch.no_grad():
        expected = score(tiny_policy().requires_grad_(False), batch).logps
    assert torch.equal(BaseReference(policy).logps(batch), expected)
    assert all(module.training for module in policy.modules())
    assert not BaseReference(policy).logps(batch).requires_grad


def test_policy_that_equals_its_reference_has_no_divergence() -> None:
    """T16: reference is explicit, named, and the KL at the start is 0, to the bit."""
    policy = build(spread=0.0)
    (batch,) = batch_up(TREES, 9)
    reference = BaseReference(policy)
    assert reference.equals(policy)
    assert reference.describe() == "base (the policy's adapter off)"
    scores = score(
        policy,
        batch,
        statistics=frozenset({"kl_to_reference"}),
        reference_hidden=reference.hidden(batch),
    )
    assert torch.equal(score(policy, batch).logps, reference.logps(batch))
    assert scores.token["kl_to_reference"].abs().max() == 0
    assert not BaseReference(build()).equals(build())


def test_starting_from_an_adapter_the_base_is_not_the_reference(tmp_path: Path) -> None:
    """T16: after supervised training the reference is that adapter, if one says so."""
    policy = build(seed=1)
    save_adapter(policy, tmp_path)
    (batch,) = batch_up(TREES, 9)
    reference = AdapterReference(policy, tmp_path)
    assert reference.equals(policy)
    with torch.no_grad():
        assert torch.equal(reference.logps(batch), score(policy, batch).logps)
        for parameter in adapter_parameters(policy).values():
            parameter.mul_(1.5)
        assert not reference.equals(policy)
        assert torch.equal(reference.logps(batch), score(build(seed=1), batch).logps)
    assert (BaseReference(policy).logps(batch) - reference.logps(batch)).abs().max() > 0.1


def test_second_adapter_on_the_same_base_costs_its_own_size(tmp_path: Path) -> None:
    """T17: memory overhead of a reference adapter is the adapter."""
    save_adapter(build(r=2, seed=1), tmp_path)
    policy = build()

    def n_bytes() -> int:
        return sum(p.numel() * p.element_size() for p in policy.parameters())

    before = n_bytes()
    AdapterReference(policy, tmp_path)
    size = (tmp_path / "adapter_model.safetensors").stat().st_size
    assert 0 < n_bytes() - before < size
    trained = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert all(".default." in name for name in trained)
    assert len(trained) == 28


def test_snapshot_stays_while_the_policy_moves() -> None:
    """T18: a snapshot is frozen, and the next one is where the policy has come to."""
    policy = build()
    (batch,) = batch_up(TREES, 9)
    reference = SnapshotReference(policy)
    start, identity = reference.logps(batch), reference.identity
    assert reference.equals(policy)
    with torch.no_grad():
        for parameter in adapter_parameters(policy).values():
            parameter.mul_(2.0)
        moved = score(policy, batch).logps
    assert torch.equal(reference.logps(batch), start)
    assert not reference.equals(policy)
    again = SnapshotReference(policy)
    assert again.identity != identity
    assert torch.equal(again.logps(batch), moved)
    assert again.equals(policy)


def test_training_goes_on_as_if_no_reference_had_been_asked() -> None:
    (batch,) = batch_up(TREES, 9)
    gradients = []
    for is_asked in (False, True):
        policy = build()
        loss = score(policy, batch).logps.sum()
        if is_asked:
            BaseReference(policy).logps(batch)
            SnapshotReference(policy).logps(batch)
        loss.backward()
        gradients.append([p.grad for p in adapter_parameters(policy).values()])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_what_does_not_change_the_reference_hits_the_cache(tmp_path: Path) -> None:
    """T14: rank, seed, learning rate and output folder are in no key; batch size is not either."""
    with LogpCache(tmp_path / "logps.sqlite") as cache:
        first = CachedReference(BaseReference(build()), cache)
        expected = torch.cat([first.logps(batch) for batch in batch_up(TREES)])
        assert (first.n_hits, first.n_computed) == (0, 18)
        again = CachedReference(BaseReference(build(r=8, seed=3, dropout=0.1)), cache)
        for size in (1, 4, 9):
            found = [again.logps(batch) for batch in batch_up(TREES, size)]
            assert torch.equal(torch.cat(found), expected)
        assert (again.n_hits, again.n_computed) == (18, 0)


def test_what_moves_last_bits_misses_the_cache(tmp_path: Path) -> None:
    """A record of one thread, or of another layout, is not what this run would compute."""
    n_threads = torch.get_num_threads()
    with LogpCache(tmp_path / "logps.sqlite") as cache:
        first = CachedReference(BaseReference(build()), cache)
        (shared,) = batch_up(TREES[:1])
        first.logps(shared)
        (padded,) = batch_up(TREES[:1], layout="padded")
        first.logps(padded)
        assert (first.n_hits, first.n_computed) == (0, 4)
        try:
            torch.set_num_threads(n_threads + 1)
            first.logps(shared)
        finally:
            torch.set_num_threads(n_threads)
        assert (first.n_hits, first.n_computed) == (0, 6)
        first.logps(shared)
        assert (first.n_hits, first.n_computed) == (0, 6)


def test_what_changes_the_reference_misses_the_cache(tmp_path: Path) -> None:
    """T14: template and truncation change the ids; model, dtype and adapter change the identity."""
    save_adapter(build(seed=1), tmp_path / "adapter")
    (batch,) = batch_up(TREES[:1])
    with LogpCache(tmp_path / "logps.sqlite") as cache:
        CachedReference(BaseReference(build()), cache).logps(batch)
        for other in (
            BaseReference(build(dtype=torch.bfloat16)),
            BaseReference(build(base_seed=1)),
            AdapterReference(build(), tmp_path / "adapter"),
            SnapshotReference(build()),
        ):
            missed = CachedReference(other, cache)
            missed.logps(batch)
            assert (missed.n_hits, missed.n_computed) == (0, 2)
        for prompt in ((5, 6, 8), (6, 7)):
            missed = CachedReference(BaseReference(build()), cache)
            missed.logps(collate([pair(0, prompt)], layout="shared", pad_id=3))
            assert (missed.n_hits, missed.n_computed) == (0, 2)


def test_a_process_that_misses_nothing_computes_with_those_that_do(tmp_path: Path) -> None:
    """Where weights are spread over processes, a pass waits for all of them."""
    (batch,) = batch_up(TREES[:1])
    policy, passes, asked = build(), [], []
    open_model(policy).decoder.register_forward_pre_hook(lambda *_: passes.append(1))

    def ask_all(answer: bool) -> bool:
        asked.append(answer)
        return True

    with LogpCache(tmp_path / "logps.sqlite") as cache:
        expected = CachedReference(BaseReference(policy), cache).logps(batch)
        assert torch.equal(CachedReference(BaseReference(policy), cache).logps(batch), expected)
        assert len(passes) == 1
        reference = CachedReference(BaseReference(policy), cache, ask_all=ask_all)
        # The second answer comes from memory, and others wait all the same.
        assert torch.equal(reference.logps(batch), expected)
        assert torch.equal(reference.logps(batch), expected)
        assert (len(passes), asked, reference.n_computed) == (3, [False, False], 0)


def test_same_ids_under_another_mask_miss_the_cache(tmp_path: Path) -> None:
    ids, masks = (5, 6, 7, 8), ((False, True, True, True), (False, False, True, True))
    with LogpCache(tmp_path / "logps.sqlite") as cache:
        reference = CachedReference(BaseReference(build()), cache)
        for mask in masks:
            tree = TokenTree.from_paths("t", [TokenPath(ids, mask)])
            batch = collate([tree], layout="shared", pad_id=3)
            torch.testing.assert_close(
                reference.logps(batch), BaseReference(build()).logps(batch), atol=1e-6, rtol=0
            )
        assert reference.n_computed == 2


def test_no_path_is_left_out_at_any_batch_size(tmp_path: Path) -> None:
    """T14: 0 missing rows, also in the last, smaller batch."""
    expected = torch.cat([BaseReference(build()).logps(batch) for batch in batch_up(TREES, 9)])
    for size in range(1, 10):
        with LogpCache(tmp_path / f"{size}.sqlite") as cache:
            reference = CachedReference(BaseReference(build()), cache)
            found = torch.cat([reference.logps(batch) for batch in batch_up(TREES, size)])
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
            assert reference.n_computed == 18


def test_interrupted_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Half of a batch is lost; the batch is computed whole, and what was there is kept."""
    results = []
    for is_interrupted in (False, True):
        path = tmp_path / f"{is_interrupted}.sqlite"
        batches = batch_up(TREES, 3)
        if is_interrupted:
            with LogpCache(path) as cache:
                reference = CachedReference(BaseReference(build()), cache)
                for batch in batches[:2]:
                    reference.logps(batch)
                with cache._database:
                    cache._database.execute(
                        "DELETE FROM logps WHERE key = (SELECT min(key) FROM logps)"
                    )
        with LogpCache(path) as cache:
            reference = CachedReference(BaseReference(build()), cache)
            results.append(torch.cat([reference.logps(batch) for batch in batches]))
            assert reference.n_hits == (11 if is_interrupted else 0)
    assert torch.equal(results[0], results[1])


def test_damaged_record_is_computed_again_to_the_same_bits(tmp_path: Path) -> None:
    (batch,) = batch_up(TREES, 9)
    path = tmp_path / "logps.sqlite"
    with LogpCache(path) as cache:
        expected = CachedReference(BaseReference(build()), cache).logps(batch)
        with cache._database:
            cache._database.execute(
                "UPDATE logps SET value = zeroblob(12) WHERE key = (SELECT min(key) FROM logps)"
            )
        reference = CachedReference(BaseReference(build()), cache)
        assert torch.equal(reference.logps(batch), expected)
        assert (reference.n_computed, cache.n_damaged) == (1, 1)


def test_fingerprint_from_files_equals_for_equal_files(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("copy", 0), ("other", 1)):
        tiny_policy(seed=seed).save_pretrained(tmp_path / name)
    model = tiny_policy()
    with LogpCache(tmp_path / "logps.sqlite") as cache:
        one, copy, other = (
            fingerprint_base(model, folder=tmp_path / name, cache=cache)
            for name in ("one", "copy", "other")
        )
    assert one == copy != other


def test_fingerprint_of_parameters_ignores_adapters() -> None:
    assert (
        fingerprint_base(build(r=2))
        == fingerprint_base(build(r=8))
        == fingerprint_base(tiny_policy())
    )


def test_quantisation_changes_the_fingerprint(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    tiny_policy().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    found = set()
    with LogpCache(tmp_path / "logps.sqlite") as cache:
        for quantisation in ("none", "nf4"):
            config = PolicyConfig.model_validate(
                {"base": str(tmp_path / "model"), "dtype": "float32", "quantisation": quantisation}
            )
            policy = load_policy(config, device="cpu")
            found.add(fingerprint_base(policy.model, folder=policy.folder, cache=cache))
            found.add(fingerprint_base(policy.model))
    assert len(found) == 4


def test_kinds_are_opened_by_name(tmp_path: Path) -> None:
    """T15: what is accepted is honoured, and anything else is an error."""
    save_adapter(build(seed=1), tmp_path / "adapter")
    policy = build()
    assert open_reference("none", policy) is None
    opened = {
        "base": BaseReference,
        "snapshot": SnapshotReference,
        f"adapter:{tmp_path / 'adapter'}": AdapterReference,
    }
    for kind, expected in opened.items():
        assert type(open_reference(kind, policy)) is expected
    with LogpCache(tmp_path / "logps.sqlite") as cache:
        cached = open_reference("base", policy, cache=cache)
        assert isinstance(cached, CachedReference)
        assert cached.describe().endswith(f"cached in {cache.path}")
    for wrong in ("bas", "adapter", "adapter:", "ema"):
        with pytest.raises(ConfigError, match="is no reference"):
            open_reference(wrong, policy)
    with pytest.raises(ConfigError, match="holds no adapter"):
        open_reference(f"adapter:{tmp_path}", policy)


def test_model_without_adapter_has_no_reference_of_its_own() -> None:
    with pytest.raises(ConfigError, match="has no adapter to switch off"):
        BaseReference(tiny_policy())


def test_cached_tokens_are_those_of_the_model_and_of_the_same_records(tmp_path: Path) -> None:
    policy = build()
    with LogpCache(tmp_path / "cache.sqlite") as cache:
        live = BaseReference(policy)
        cached = CachedReference(live, cache)
        batch = collate(TREES, layout="shared", pad_id=3)
        for _ in range(2):
            torch.testing.assert_close(cached.token_logps(batch), live.token_logps(batch))
        assert cached.n_computed == len(set(batch.path_digests))
        again = CachedReference(live, cache)
        torch.testing.assert_close(again.logps(batch), live.logps(batch))
        assert (again.n_hits, again.n_computed) == (len(set(batch.path_digests)), 0)


def test_the_last_layer_is_what_the_head_reads(tmp_path: Path) -> None:
    policy = build()
    batch = collate(TREES, layout="shared", pad_id=3)
    with LogpCache(tmp_path / "cache.sqlite") as cache:
        reference = CachedReference(BaseReference(policy), cache)
        layers = reference.layers(batch)
        assert layers.shape == (len(batch.target), 2, 32)
        assert torch.equal(layers[:, -1], reference.hidden(batch))
        assert not torch.equal(layers[:, 0], layers[:, 1])
