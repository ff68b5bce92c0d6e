"""Killed with SIGKILL and started again, a run ends in the bytes of one that never stopped."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("resume_run.py")
SAME = (
    "metrics.jsonl",
    "evaluations.jsonl",
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
)

WITH_HEADS = {"sparsepo", "oreo"}


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


def assert_same(folder, expected):
    heads = [path.relative_to(expected) for path in expected.glob("adapter/heads.*")]
    for name in (*SAME, *heads):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name


# Steps 1, before any checkpoint; 5, inside an accumulated step; 9, in the second epoch.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "kills"),
    [("dpo", (1, 5, 9)), ("kto", (8,)), ("sparsepo", (2, 5)), ("oreo", (8,))],
)
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(objective, kills, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(whole, "--objective", objective).returncode == 0
    for step in kills:
        killed = run(broken, "--objective", objective, "--kill-at", str(step))
        assert killed.returncode == -signal.SIGKILL
        assert not (broken / "adapter").exists()
    resumed = run(broken, "--objective", objective)
    assert resumed.returncode == 0, resumed.stderr
    assert (whole / "adapter" / "heads.safetensors").exists() == (objective in WITH_HEADS)
    assert_same(broken, whole)


@pytest.mark.slow
def test_a_truncated_checkpoint_falls_back_to_the_one_before(tmp_path):
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    assert run(whole).returncode == 0
    run(damaged, "--kill-at", "8")
    file = damaged / "checkpoint-6" / "optimizer.pt"
    file.write_bytes(file.read_bytes()[:100])
    resumed = run(damaged)
    assert resumed.returncode == 0, resumed.stderr
    assert "optimizer.pt has 100 bytes" in resumed.stderr
    assert "continuing from checkpoint-3" in resumed.stderr
    assert_same(damaged, whole)
