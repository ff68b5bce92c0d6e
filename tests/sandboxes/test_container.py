"""Process 1 of a container and the walls that it proves: each one missing is named, and refused."""

import contextlib
import struct

import pytest
from docker.errors import NotFound
from trillium_sandbox import SandboxError
from trillium_sandbox.docker import daemon
from trillium_sandbox.docker.room import Room
from trillium_sandbox.docker.worker import ContainerWorker
from trillium_sandbox.embedded import EmbeddedBackend
from trillium_sandbox.frames import frame
from trillium_sandbox.limits import Limits

ROOM = Room.for_limits(Limits())

WITHOUT = {
    "the root is writable": {"ReadonlyRootfs": False},
    "/box is no tmpfs": {"Tmpfs": {"/box": "size=1m,exec"}},
    "more capabilities": {"CapAdd": ["SETUID", "SETGID", "KILL", "CHOWN"]},
    "new privileges": {"SecurityOpt": []},
    "no seccomp profile": {"SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]},
    "no memory limit": {"Memory": 0, "MemorySwap": 0},
    "no limit on processes": {"PidsLimit": 0},
    "programs can write to /dev/shm": {"IpcMode": "private"},
    "programs can write to /shared": {"Tmpfs": {"/box": "mode=0777", "/shared": "mode=0777"}},
}


@pytest.fixture(scope="module")
def engine(docker_image):
    with contextlib.closing(daemon.connect()) as api:
        yield daemon.look(api, None)


@pytest.fixture
def started(engine, monkeypatch):
    """Return a function that starts a container with some of its settings changed."""

    def start(changes):
        make = daemon.APIClient.create_host_config

        def weaker(self, **walls):
            config = make(self, **walls)
            config.update(changes)
            return config

        monkeypatch.setattr(daemon.APIClient, "create_host_config", weaker)
        return ContainerWorker.start(engine, ROOM)

    return start


@pytest.mark.security
@pytest.mark.parametrize(("reason", "changes"), WITHOUT.items(), ids=WITHOUT)
def test_a_container_without_a_wall_is_refused_by_its_name(started, reason, changes):
    with pytest.raises(SandboxError) as refused:
        started(changes)
    walls = str(refused.value).removeprefix("docker: level 3: no hardened container: ")
    assert [wall for wall in walls.split("; ") if wall.startswith(reason)] == [walls]


@pytest.mark.security
def test_this_machine_itself_is_no_container():
    with pytest.raises(SandboxError, match=r"level 3: no hardened container: .*/box is no tmpfs"):
        EmbeddedBackend(3, n_workers=1)


def test_a_container_ends_when_its_stream_does(engine):
    worker = ContainerWorker.start(engine, ROOM)
    with contextlib.closing(daemon.connect()) as api:
        assert api.inspect_container(worker.container)["State"]["Running"]
        worker.stream.close()
        with contextlib.suppress(NotFound):  # gone already
            api.wait(worker.container, condition="removed", timeout=30)
        assert worker.container not in [row["Id"] for row in api.containers(all=True)]
    worker.stop()


@pytest.mark.parametrize(
    "nonsense",
    [b"\xff" * 64, frame(("run", 1)), frame(("dance",)), struct.pack("<I", 5) + b"hello"],
    ids=["a huge frame", "half a request", "an unknown word", "no value"],
)
def test_nonsense_from_outside_ends_the_container(engine, nonsense):
    worker = ContainerWorker.start(engine, ROOM)
    worker.stream.unsent += nonsense
    worker.stream.send()
    worker.stream.socket.setblocking(True)
    with pytest.raises(ConnectionResetError):
        _listen(worker)
    worker.stop()


def _listen(worker):
    while True:
        assert worker.receive() == []
