"""`accelerate launch` with two processes trains, by the same command, what one process trains."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium.training.journal import read_evaluations, read_metrics

TRILLIUM = [sys.executable, "-c", "from trillium.cli import main; main()"]


def launched(*options):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *(options or ["--multi_gpu"])]
    return [*launcher, "--num_processes", "2", "--main_process_port", port, "--no_python"]


def train(launcher, *arguments, cwd):
    return subprocess.run(
        [*launcher, *TRILLIUM, "train", "run.yaml", *arguments],
        cwd=cwd,
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "TRILLIUM_CACHE": str(cwd / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a tiny model, 21 pairs and a run file."""
    tiny_policy().save_pretrained(tmp_path / "tiny")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    draw = random.Random(0)

    def say(n_most):
        return " ".join(draw.choices(["sun", "moon", "star"], k=draw.randint(2, n_most)))

    rows = [
        {"prompt": f"{index} {say(5)} ", "chosen": say(4), "rejected": say(9)}
        for index in range(21)
    ]
    for name, some in (("pairs", rows), ("held_out", rows[:5])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, some)))
    run = {
        "data": {"path": "pairs.jsonl", "held_out": "held_out.jsonl"},
        "policy": {"base": "tiny", "dtype": "float32", "lora": {"r": 4}},
        "train": {"learning_rate": 1e-3, "eval_steps": 3, "save_steps": 2, "micro_tokens": 64},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    return tmp_path


@pytest.mark.slow
def test_two_launched_processes_are_one_with_the_same_global_batch(folder):
    alone = train([], "output=one", "train.per_device_train_batch_size=4", cwd=folder)
    assert alone.returncode == 0, alone.stderr
    both = train(launched(), "output=two", "train.per_device_train_batch_size=2", cwd=folder)
    assert both.returncode == 0, both.stderr
    for read in (read_metrics, read_evaluations):
        one, two = (read(folder / name) for name in ("one", "two"))
        assert len(one) == len(two) > 1
        for row, other in zip(one, two, strict=True):
            assert row == pytest.approx(other, rel=1e-3, abs=1e-5)
    # What the command says, it says once.
    assert both.stdout.count("two/adapter") == 1
    assert both.stderr.count("rows: 21 of 21") == 1
    adapters = [folder / name / "adapter" / "adapter_model.safetensors" for name in ("one", "two")]
    left, right = map(load_file, adapters)
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, right[name], rtol=1e-3, atol=2e-5)
    written = Path(adapters[1]).stat().st_mtime_ns
    # With weights spread over the two the same bytes come out, from an empty cache.
    shutil.rmtree(folder / "cache")
    spread = launched("--use_fsdp", "--fsdp_version", "2")
    apart = train(spread, "output=apart", "train.per_device_train_batch_size=2", cwd=folder)
    assert apart.returncode == 0, apart.stderr
    for name in ("metrics.jsonl", "evaluations.jsonl", "adapter/adapter_model.safetensors"):
        assert (folder / "apart" / name).read_bytes() == (folder / "two" / name).read_bytes(), name
    again = train(launched(), "output=two", "train.per_device_train_batch_size=2", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert adapters[1].stat().st_mtime_ns == written
