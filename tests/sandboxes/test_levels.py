import subprocess
import sys

from trillium_sandbox import LEVELS, Probe, probe
from trillium_sandbox.levels import describe_level, probe_docker


def test_levels_are_numbered_from_0_to_5():
    assert [level.number for level in LEVELS] == [0, 1, 2, 3, 4, 5]


def test_every_level_says_what_it_stops_and_what_it_does_not():
    assert all(level.stops and level.does_not_stop for level in LEVELS)


def test_a_probe_answers_for_every_level_with_a_reason():
    probes = probe()
    assert [found.level for found in probes] == [0, 1, 2, 3, 4, 5]
    assert all(found.reason for found in probes)
    assert probes[2].available
    assert "namespaces" in probes[2].reason


def test_the_doctor_hears_the_highest_level_and_no_advice_where_it_is_enough(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    answer = describe_level()
    assert answer["found"].startswith("level 2 (namespaces): ")
    assert answer["advice"] == ""


def test_without_an_engine_levels_3_to_5_are_refused_with_the_reason(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    reason = probe_docker()[0].reason
    assert reason.startswith(
        "no engine answers at tcp://127.0.0.1:9 (Connection refused); start one ("
    )
    assert probe_docker() == [Probe(level, False, reason) for level in (3, 4, 5)]


def test_without_the_docker_extra_the_reason_names_it():
    program = (
        "import sys\nsys.modules['docker'] = None\nfrom trillium_sandbox.levels import probe\n"
        "print(probe()[3].reason)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout == 'the docker backend needs docker (pip install "trillium[docker]")\n'


def test_an_engine_holds_level_3_and_says_which_runtimes_it_lacks(docker_image):
    container, gvisor, vm = probe_docker()
    assert container.available
    assert container.reason.startswith("container, seccomp, Landlock")
    assert not gvisor.available or "kernel" in gvisor.reason
    assert not vm.available or "kernel" in vm.reason
