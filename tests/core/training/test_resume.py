"""Killed with SIGKILL and started again, a run ends in the bytes of one that never stopped."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("resume_run.py")
SAME = ("metrics.jsonl", "adapter/adapter_model.safetensors", "adapter/adapter_config.json")


def run(output, *options):
    paths = os.pathsep.join([str(SCRIPT.parent), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(output), *options],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module", params=["dpo", "kto"])
def uninterrupted(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    done = run(folder, "--objective", request.param)
    assert done.returncode == 0, done.stderr
    return request.param, folder


# Steps 1, before any checkpoint; 5, inside an accumulated step; 9, in the second epoch.
@pytest.mark.slow
@pytest.mark.parametrize("kill_at", [1, 5, 9])
def test_a_killed_run_ends_in_the_same_bytes(uninterrupted, kill_at, tmp_path):
    objective, expected = uninterrupted
    killed = run(tmp_path, "--objective", objective, "--kill-at", str(kill_at))
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "adapter").exists()
    resumed = run(tmp_path, "--objective", objective)
    assert resumed.returncode == 0, resumed.stderr
    for name in SAME:
        assert (tmp_path / name).read_bytes() == (expected / name).read_bytes(), name


@pytest.mark.slow
def test_a_truncated_checkpoint_falls_back_to_the_one_before(uninterrupted, tmp_path):
    objective, expected = uninterrupted
    run(tmp_path, "--objective", objective, "--kill-at", "8")
    damaged = tmp_path / "checkpoint-6" / "optimizer.pt"
    damaged.write_bytes(damaged.read_bytes()[:100])
    resumed = run(tmp_path, "--objective", objective)
    assert resumed.returncode == 0, resumed.stderr
    assert "optimizer.pt has 100 bytes" in resumed.stderr
    assert "continuing from checkpoint-3" in resumed.stderr
    for name in SAME:
        assert (tmp_path / name).read_bytes() == (expected / name).read_bytes(), name
