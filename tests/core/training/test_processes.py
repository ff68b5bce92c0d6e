"""Processes that train together hear the first one and leave their group in order."""

import json
import os
import socket
import subprocess
import sys

import pytest
from trillium.errors import ConfigError
from trillium.training.processes import joined_processes, refuse_sharding, wants_sharding
from trillium.training.sampler import Split, StepSampler
from trillium.training.steps import Sample, StepCollator

FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
# Thirty exchanges and a sudden end: with the group left open, about one run in three aborts.
TALK = """
import json, sys, torch, torch.distributed as dist
from trillium.training.processes import joined_processes
with joined_processes() as processes:
    for _ in range(30):
        told = processes.tell({"from": processes.index})
    if processes.index == int(sys.argv[1]):
        raise SystemExit(7)
    if int(sys.argv[1]) >= 0:
        processes.tell()
print(json.dumps([processes.n, processes.index, told, dist.is_initialized()]))
"""


def run_two(code, *arguments):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={
                **os.environ,
                **together,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    found = [process.communicate(timeout=240) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, found, strict=True)]


@pytest.mark.slow
def test_all_hear_the_first_and_no_group_is_left_open():
    for rank, (code, printed, errors) in enumerate(run_two(TALK, "-1")):
        assert code == 0, errors
        assert json.loads(printed.splitlines()[-1]) == [2, rank, {"from": 0}, False]


@pytest.mark.slow
def test_a_process_that_fails_does_not_wait_for_the_others():
    first, second = run_two(TALK, "0")
    assert first[0] == 7
    # It waited for what the first would have told, and learned that there is nobody to tell it.
    assert second[0] not in (0, 7)
    assert "Error" in second[2]


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "ACCELERATE_USE_DEEPSPEED=true: .* --use_fsdp"),
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP_VERSION=1: .* --fsdp_version 2"),
        ({**FSDP, "FSDP_OFFLOAD_PARAMS": "true"}, "FSDP_OFFLOAD_PARAMS=true: .* leave "),
        ({**FSDP, "FSDP_RESHARD_AFTER_FORWARD": "false"}, "FSDP_RESHARD_AFTER_FORWARD=false: "),
        (
            {**FSDP, "FSDP_ACTIVATION_CHECKPOINTING": "true"},
            "FSDP_ACTIVATION_CHECKPOINTING=true: .* set train.gradient_checkpointing=true",
        ),
    ],
)
def test_ways_to_spread_weights_that_are_not_known_are_refused(environment, sentence, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=sentence), joined_processes():
        pass


@pytest.mark.parametrize("name", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_spread_weights_that_nothing_spreads_are_refused(name, monkeypatch):
    refuse_sharding()
    monkeypatch.setenv(name, "true")
    with pytest.raises(ConfigError, match=f"{name}=true: only `trillium train` spreads weights"):
        refuse_sharding()


def test_one_process_shares_with_nobody_and_keeps_the_plugin_away(monkeypatch):
    for name, value in FSDP.items():
        monkeypatch.setenv(name, value)
    assert wants_sharding()
    with joined_processes() as processes:
        assert not processes.shards
        # Else transformers' Trainer would spread the weights in its own way.
        assert not wants_sharding()
    assert wants_sharding()


def test_processes_take_different_numbers_of_passes(pairs):
    """The reason for spare passes: 21 trees in steps of four, dealt to two processes."""
    trees = pairs(21)
    collate = StepCollator("shared", 0, micro_tokens=64)

    def n_passes(index):
        split = Split(per_device=2, n_processes=2, rank=index)
        steps = StepSampler([tree.n_tokens for tree in trees], split, order="shuffle", seed=0)
        return [len(collate([Sample(trees[place]) for place in step]).rows) for step in steps]

    first, second = n_passes(0), n_passes(1)
    assert len(first) == len(second) == 6
    assert first != second
    assert second[-1] == 0


def test_a_command_that_nobody_launched_is_alone():
    with joined_processes() as processes:
        assert (processes.n, processes.is_first, processes.tell("said")) == (1, True, "said")
