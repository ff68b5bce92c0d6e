"""Two processes take the same steps as one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trillium.training.journal import read_metrics

SCRIPT = Path(__file__).with_name("resume_run.py")


def start(output, n_processes, accumulation, objective, *, kill_at=0):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    paths = os.pathsep.join([str(SCRIPT.parent), *filter(None, sys.path)])
    command = [sys.executable, str(SCRIPT), str(output), "--objective", objective]
    command += ["--accumulation", str(accumulation), "--dropout", "0", "--kill-at", str(kill_at)]
    together = {"WORLD_SIZE": str(n_processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = []
    for rank in range(n_processes):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        processes.append(
            subprocess.Popen(
                command,
                env={
                    **os.environ,
                    **({**together, **own} if n_processes > 1 else {}),
                    "PYTHONPATH": paths,
                    "OMP_NUM_THREADS": "1",
                },
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0 or kill_at, errors


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["cpo", "kto", "c3po", "oreo"])
def test_two_processes_train_what_one_trains(objective, tmp_path):
    # 21 trees in steps of 4: the last step has one tree, so one process has none.
    start(tmp_path / "one", 1, 2, objective)
    start(tmp_path / "two", 2, 1, objective)
    one, two = (read_metrics(tmp_path / name) for name in ("one", "two"))
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for row, other in zip(one, two, strict=True):
        assert row == pytest.approx(other, rel=1e-3, abs=1e-5)
    for path in (tmp_path / "one" / "adapter").glob("*.safetensors"):
        left, right = load_file(path), load_file(tmp_path / "two" / "adapter" / path.name)
        for name, tensor in left.items():
            torch.testing.assert_close(tensor, right[name], rtol=1e-3, atol=2e-5)


@pytest.mark.slow
def test_another_number_of_processes_does_not_continue_an_epoch_that_was_dealt_otherwise(tmp_path):
    """Four steps of two processes are eight of one: trees would come twice, and others never."""
    start(tmp_path / "run", 2, 1, "cpo", kill_at=5)
    assert (tmp_path / "run" / "checkpoint-3").is_dir()
    start(tmp_path / "run", 1, 1, "cpo")
    start(tmp_path / "alone", 1, 1, "cpo")
    assert read_metrics(tmp_path / "run") == read_metrics(tmp_path / "alone")
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
