"""With weights spread over two processes, training ends in the bytes of whole weights."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn
from trillium.errors import ConfigError
from trillium.policies.config import PolicyConfig
from trillium.training.config import TrainConfig
from trillium.training.sharding import check_shardable, even_out, is_sharded, shard_base
from trillium.training.steps import StepCollator

SCRIPT = Path(__file__).with_name("sharded_run.py")
# One that compares mismatched rows, one with a value head, one that reads all layers.
OBJECTIVES = ["dpo", "kto", "oreo", "sparsepo"]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    asked = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "OMP_NUM_THREADS": "1"}
    paths = os.pathsep.join([str(SCRIPT.parent), *filter(None, sys.path)])
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), *OBJECTIVES],
            env={
                **os.environ,
                **together,
                **asked,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "PYTHONPATH": paths,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    return folder


def assert_same(left, right):
    names = {path.name for path in left.glob("adapter/*.safetensors")}
    assert names == {path.name for path in right.glob("adapter/*.safetensors")}
    for name in [f"adapter/{name}" for name in names] + ["metrics.jsonl", "evaluations.jsonl"]:
        assert (left / name).read_bytes() == (right / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_spread_weights_train_what_whole_weights_train(objective, output):
    assert_same(output / objective / "whole", output / objective / "spread")
    has_heads = (output / objective / "spread" / "adapter" / "heads.safetensors").exists()
    assert has_heads == (objective in ("oreo", "sparsepo"))


@pytest.mark.slow
@pytest.mark.parametrize("stopped", ["continued", "continued-whole"])
def test_a_run_with_spread_weights_that_stopped_ends_in_the_same_bytes(stopped, output):
    """Activations are recomputed here, which changes no bit either."""
    assert_same(output / "dpo" / "whole", output / stopped)


@pytest.mark.slow
def test_each_process_keeps_half_of_the_layers(output):
    for rank in range(2):
        counts = json.loads((output / f"counts-{rank}.json").read_text())
        assert counts["of"] > 0
        assert counts["kept"] * 2 == counts["of"]


@pytest.mark.parametrize(
    ("policy", "train", "sentence"),
    [
        ({"quantisation": "nf4"}, {}, "policy.quantisation=nf4: .* without --use_fsdp"),
        ({"attention": "flex"}, {}, "policy.attention=flex: .* set policy.attention=auto"),
        ({}, {"overoptimisation_steps": 5}, "train.overoptimisation_steps=5: .* remove it"),
    ],
)
def test_what_spread_weights_cannot_do_is_refused(policy, train, sentence):
    with pytest.raises(ConfigError, match=sentence):
        check_shardable(PolicyConfig(**policy), TrainConfig(**train))
    check_shardable(PolicyConfig(), TrainConfig())


def test_a_decoder_whose_layers_cannot_be_told_apart_is_refused(policy, monkeypatch):
    model = policy()
    layers = model.get_base_model().model.layers
    model.get_base_model().model.layers = nn.ModuleList([layers[0], layers[0]])
    with pytest.raises(ConfigError, match=r"its layers share weights .* without --use_fsdp"):
        shard_base(model)
    model.get_base_model().model.layers = nn.Sequential(*layers)
    with pytest.raises(ConfigError, match=r"has no list of layers .* without --use_fsdp"):
        shard_base(model)


def test_whole_weights_wait_for_nobody(policy, pairs):
    assert not is_sharded(policy())
    rows = list(StepCollator("shared", 0, micro_tokens=64).batch_rows(pairs(5)))
    assert len(rows) > 1
    assert list(even_out(rows, ())) == [(each, True) for each in rows]
