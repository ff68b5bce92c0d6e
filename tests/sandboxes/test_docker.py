"""The docker backend on a real engine: its queue, its containers, and what it refuses."""

import contextlib
import itertools

import pytest
from trillium_sandbox import Limits, Request, RequestError, SandboxError, open_backend
from trillium_sandbox.docker import backend as backend_module
from trillium_sandbox.docker import daemon, sources
from trillium_sandbox.docker.backend import DockerBackend
from trillium_sandbox.docker.daemon import level_of
from trillium_sandbox.docker.room import Room

SOURCE = b"def f(x): return x + 1"
LIMITS = Limits()


def function(name, tests=("assert f(1) == 2", "assert f(2) == 3"), limits=LIMITS):
    return Request(str(name), "function", SOURCE, tuple(tests), "f", limits=limits)


def script(name, source, limits=LIMITS):
    return Request(str(name), "script", source.encode(), limits=limits)


@pytest.fixture(scope="module")
def docker(docker_image):
    with open_backend("docker", min_level=3, n_workers=2) as opened:
        yield opened


@pytest.fixture(scope="module")
def api(docker_image):
    with contextlib.closing(daemon.connect()) as client:
        yield client


def test_replies_come_once_each_in_order_and_say_their_level(docker):
    sources_ = ["import time; time.sleep(0.05)", "pass", "print(1)", "raise SystemExit(3)"]
    requests = [script(n, sources_[n % 4]) if n % 5 else function(n) for n in range(60)]
    replies = list(docker.run(requests))
    assert [reply.id for reply in replies] == [request.id for request in requests]
    assert [reply.exit_code for reply in replies[1:4]] == [0, 0, 3]
    assert {reply.status for reply in replies[::5]} == {"pass"}
    assert {reply.isolation for reply in replies} == {3}


def test_every_mode_and_field_crosses_the_stream(docker):
    wrong = function("wrong", ["assert f(1) == 2", "assert f(1) == 3", "f(None)"])
    printed = Request(
        "stdio", "stdio", b"print(input()[::-1])", stdin=b"abc\n", expected_stdout=b"cba\n"
    )
    counted = Request("counted", "script", b"sum(range(9))", count_opcodes=True)
    binary = script("binary", "import os; os.write(1, bytes(range(256))); os.write(2, b'\\xff')")
    one, two, three, four = docker.run([wrong, printed, counted, binary])
    assert (one.tests, one.integrity) == (("pass", "fail", "error"), "split")
    assert (two.status, two.integrity) == ("pass", "split")
    assert 5 <= three.opcode_count < 50
    assert (four.stdout, four.stderr) == (bytes(range(256)), b"\xff")


def test_what_a_program_prints_is_never_read_as_a_reply(docker):
    forged = (
        "import os, struct\nfrom pathlib import Path\n"
        "text = b't\\x02\\0\\0\\0s\\x04\\0\\0\\0doneN'\n"
        "line = struct.pack('>BxxxI', 1, len(text) + 4) + struct.pack('<I', len(text)) + text\n"
        "for fd in range(64):\n    try: os.write(fd, line * 9)\n    except OSError: pass"
    )
    replies = list(docker.run([script(n, forged) if n % 2 else function(n) for n in range(20)]))
    assert [reply.status for reply in replies] == ["pass", "ok"] * 10
    assert docker.n_restarts == 0


def test_the_largest_request_and_the_largest_output_cross(docker):
    limits = Limits(output_bytes=16 << 20)
    source = "#" + "x" * (15 << 20) + "\nimport sys\nsys.stdout.buffer.write(b'y' * (16 << 20))"
    first, second = docker.run([script("a", source, limits), function("b")])
    assert first.stdout == b"y" * (16 << 20)
    assert second.status == "pass"


def test_an_endless_run_is_abandoned_without_a_trace(docker):
    taken = itertools.count()
    replies = docker.run(function(next(taken)) for _ in itertools.count())
    assert [next(replies).id for _ in range(3)] == ["0", "1", "2"]
    replies.close()
    assert next(taken) < 200
    assert [reply.status for reply in docker.run([function("next")])] == ["pass"]


def test_forgotten_requests_are_never_answered_and_do_not_hold_up_others(docker):
    limits = Limits(wall_s=600, cpu_s=600)
    hung = [docker.submit(script(f"hung-{n}", "while True: pass", limits)) for n in range(4)]
    docker.forget(hung)
    wanted = docker.submit(script("wanted", "print(1)"))
    replies = {}
    while wanted not in replies:
        replies |= docker.collect()
    assert list(replies) == [wanted]


@pytest.mark.parametrize(
    ("limits", "source", "statuses"),
    [
        ({"disk_bytes": 1 << 20}, "open('x', 'wb').write(bytes(2 << 20))", {"error"}),
        ({"disk_bytes": 64 << 20}, "open('x', 'wb').write(bytes(60 << 20))", {"ok"}),
        ({"memory_bytes": 1 << 30}, "x = b'y' * (900 << 20)", {"ok"}),
        ({"memory_bytes": 1 << 30}, "x = b'y' * (1100 << 20)", {"memory"}),
        (
            {"n_processes": 200, "memory_bytes": 1 << 31},
            "import threading as t\ne = t.Event()\n"
            "a = [t.Thread(target=e.wait) for _ in range(150)]\n"
            "[x.start() for x in a]; e.set()",
            {"ok"},
        ),
    ],
    ids=["less disk", "more disk", "more memory", "not that much memory", "more threads"],
)
def test_a_request_with_other_limits_gets_a_container_with_room(docker, limits, source, statuses):
    other = script("other", source, Limits(**limits))
    replies = list(docker.run([function(0), other, function(2)]))
    assert [reply.status for reply in replies[::2]] == ["pass", "pass"]
    assert replies[1].status in statuses


def test_a_limit_that_no_engine_can_build_is_a_failure_of_the_sandbox_for_that_request_only(docker):
    absurd = script("absurd", "pass", Limits(disk_bytes=(1 << 60) - 1))
    replies = list(docker.run([function(0), absurd, function(1)]))
    assert [reply.status for reply in replies[::2]] == ["pass", "pass"]
    assert replies[1].status in ("sandbox_error", "ok")


def test_containers_are_replaced_after_so_many_programs(docker_image, monkeypatch):
    monkeypatch.setattr(backend_module, "RECYCLE_AFTER", 100)
    with DockerBackend(n_workers=1) as backend:
        before = set(backend.containers)
        replies = list(backend.run(function(n) for n in range(1000)))
        assert [reply.id for reply in replies] == [str(n) for n in range(1000)]
        assert {reply.status for reply in replies} == {"pass"}
        assert not before & set(backend.containers)
        assert backend.n_restarts == 0


def test_a_container_has_the_walls_of_level_3(docker, api):
    for container in docker.containers:
        facts = api.inspect_container(container)
        walls = facts["HostConfig"]
        assert walls["NetworkMode"] == "none"
        assert walls["IpcMode"] == "none"
        assert walls["ReadonlyRootfs"]
        assert walls["CapDrop"] == ["ALL"]
        assert sorted(name.removeprefix("CAP_") for name in walls["CapAdd"]) == [
            "KILL",
            "SETGID",
            "SETUID",
        ]
        assert walls["SecurityOpt"][0].startswith("no-new-privileges")
        assert "SCMP_ACT_ERRNO" in walls["SecurityOpt"][1]
        assert walls["Memory"] == walls["MemorySwap"] > 0
        assert walls["PidsLimit"] > 0
        assert walls["LogConfig"]["Type"] == "none"
        assert not walls["Privileged"]
        assert not walls["Binds"]
        assert not facts["Mounts"]
        assert walls["AutoRemove"]


def test_nothing_is_left_after_close(docker_image, api):
    backend = DockerBackend(n_workers=2)
    containers = set(backend.containers)
    assert len(containers) == 2
    backend.close()
    assert not containers & {row["Id"] for row in api.containers(all=True)}
    with pytest.raises(SandboxError, match="closed"):
        next(backend.run([function("a")]))


def test_a_missing_image_is_refused_with_the_command_to_run(docker_image, monkeypatch):
    monkeypatch.setattr(daemon, "IMAGE", "trillium-sandbox-absent")
    with pytest.raises(SandboxError) as refused:
        open_backend("docker")
    command = sources.image_folder() / "build"
    assert str(refused.value) == (
        f"docker: image trillium-sandbox-absent is missing; run {command}"
    )
    assert command.exists()


def test_an_image_with_other_code_is_refused_with_the_command_to_run(docker_image, monkeypatch):
    monkeypatch.setattr(daemon, "source_hash", lambda: "another")
    with pytest.raises(SandboxError, match=r"holds other code than this; run .*/build"):
        open_backend("docker")


def test_an_unknown_runtime_is_refused_with_those_that_there_are(docker_image):
    with pytest.raises(SandboxError, match=r"no runtime 'runsc-of-mars' \(.*runc.*\); install it"):
        DockerBackend(1, runtime="runsc-of-mars")


def test_a_runtime_that_shares_the_kernel_is_not_taken_for_a_higher_level(
    docker_image, monkeypatch
):
    monkeypatch.setattr(daemon, "level_of", lambda runtime: 5)
    with pytest.raises(SandboxError, match=r"on the engine's own kernel .* which is level 3"):
        DockerBackend(1, runtime="runc")


def test_runtimes_are_known_by_name():
    names = (None, "runc", "runsc", "runsc-kvm", "io.containerd.kata.v2", "kata-qemu")
    assert [level_of(name) for name in names] == [3, 3, 4, 4, 5, 5]


def test_a_level_beyond_the_runtime_is_refused():
    with pytest.raises(SandboxError, match=r"level 4 is needed, and the backend docker reaches 3"):
        open_backend("docker", min_level=4)
    with pytest.raises(RequestError, match="runtime='runsc' is for the backend docker"):
        open_backend("embedded", runtime="runsc")


def test_no_engine_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(SandboxError) as refused:
        open_backend("docker")
    assert str(refused.value).startswith(
        "docker: no engine answers at unix:///nowhere/docker.sock (No such file or directory); "
    )
    monkeypatch.setenv("DOCKER_HOST", "ssh://somewhere")
    with pytest.raises(SandboxError, match="is ssh; forward its socket, or use tcp://"):
        open_backend("docker")


def test_the_image_holds_every_module_that_it_names():
    text = (sources.image_folder() / "Dockerfile").read_text()
    copied = [word for word in text.split() if word.startswith("trillium_sandbox/")]
    assert copied == [f"trillium_sandbox/{name}.py" for name in sources.INSIDE]


def test_a_room_holds_its_disk_exactly_and_of_the_rest_enough():
    room = Room.for_limits(Limits(memory_bytes=300 << 20, n_processes=17))
    assert (room.memory_bytes, room.n_processes) == (512 << 20, 32)
    assert room.holds(Limits(memory_bytes=512 << 20, n_processes=32))
    assert not room.holds(Limits(memory_bytes=513 << 20))
    assert not room.holds(Limits(n_processes=33))
    assert not room.holds(Limits(disk_bytes=16 << 20))
    assert room.total_memory_bytes > 2 * room.memory_bytes + room.disk_bytes
