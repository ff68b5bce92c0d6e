"""The arena: a hostile program between honest ones, and what must hold on the host afterwards."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from trillium_sandbox import Limits, Reply, Request
from trillium_sandbox.docker import daemon
from trillium_sandbox.docker.backend import DockerBackend
from trillium_sandbox.embedded import EmbeddedBackend

CANARY = "canary-7f3a9c1e55d0"
LIMITS = Limits(wall_s=1.5, cpu_s=0.6, memory_bytes=96 << 20, disk_bytes=4 << 20)

HONEST = b"def add(a, b):\n    return a + b\n"
HONEST_TESTS = ("assert add(2, 3) == 5", "assert add('a', 'b') == 'ab'", "assert add(1, 1) != 3")
SECRETIVE = f"secret = '{CANARY}-source'\nopen('left', 'w').write(secret)\nprint(secret)".encode()
LOOK_AROUND = (
    b"import os\nprint(*map(os.listdir, ['.', os.environ['TMPDIR'], '/dev/shm']), sep=' ')"
)

MOST_CHILDREN = 2
"""Of a zygote: the child that waits for the next request, which is the zygote's own code, and the
judge that waits for the next candidate with the same tests."""

MOST_FORKS = 2
"""Of such a judge: those that have yet to meet a candidate."""

Attack = Callable[..., Reply]


@pytest.fixture(scope="session", params=["embedded", "docker"])
def arena(request: pytest.FixtureRequest) -> Iterator[EmbeddedBackend | DockerBackend]:
    if request.param == "embedded":
        with EmbeddedBackend(2, n_workers=2) as backend:
            yield backend
        return
    request.getfixturevalue("docker_image")
    with DockerBackend(n_workers=2) as backend:
        yield backend


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Canaries where a program might find them: environment, files, sockets."""
    folder = tmp_path_factory.mktemp("planted")
    folder.chmod(0o755)
    (folder / "secret.txt").write_text(CANARY)
    (folder / "secret.txt").chmod(0o644)
    public = Path("/tmp/trillium-canary.txt")
    public.write_text(CANARY)
    os.environ["TRILLIUM_CANARY"] = CANARY
    listeners = [_listen(socket.AF_INET, ("127.0.0.1", 0)), _listen(socket.AF_UNIX, "\0trillium")]
    (folder / "port").write_text(str(listeners[0].getsockname()[1]))
    yield folder
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    public.unlink()
    del os.environ["TRILLIUM_CANARY"]


@pytest.fixture
def attack(arena: EmbeddedBackend | DockerBackend, planted: Path) -> Attack:
    """Return a function that runs a program among honest neighbours and checks the host."""

    def run(
        source: str | bytes,
        *,
        tests: tuple[str, ...] = (),
        entry_point: str | None = None,
        limits: Limits = LIMITS,
        stdin: bytes = b"",
    ) -> Reply:
        text = source.encode() if isinstance(source, str) else source
        text = text.replace(b"PLANTED", str(planted).encode())
        text = text.replace(b"PORT", (planted / "port").read_bytes())
        hostile = Request(
            "hostile",
            "function" if tests else "script",
            text,
            tests,
            entry_point,
            stdin=stdin,
            limits=limits,
        )
        # The same disk: a container has only one size.
        theirs = Limits(disk_bytes=limits.disk_bytes)
        honest = [
            Request(f"honest-{n}", "function", HONEST, HONEST_TESTS, "add", limits=theirs)
            for n in range(4)
        ]
        secretive = [
            Request(f"secretive-{n}", "script", SECRETIVE, limits=theirs) for n in range(2)
        ]
        after = [Request(f"after-{n}", "script", LOOK_AROUND, limits=theirs) for n in range(2)]
        replies = {
            reply.id: reply
            for reply in arena.run([*secretive, honest[0], hostile, *honest[1:], *after])
        }
        _check_host(arena, replies)
        return replies["hostile"]

    return run


def _check_host(arena: EmbeddedBackend | DockerBackend, replies: dict[str, Reply]) -> None:
    for name, reply in replies.items():
        if name.startswith("honest"):
            assert (reply.status, reply.integrity) == ("pass", "split"), reply
        if name.startswith("after"):
            assert reply.stdout == b"[] [] []\n", reply
        if not name.startswith("secretive"):
            assert CANARY not in str(reply), f"{name} found a planted secret"
        assert reply.isolation == arena.level >= 2
    if isinstance(arena, DockerBackend):
        _check_containers(arena)
        return
    for launcher in arena.worker_pids:
        (zygote,) = _children(launcher)
        assert len(_children(zygote)) <= MOST_CHILDREN, "a process was left behind"


def _check_containers(arena: DockerBackend) -> None:
    with contextlib.closing(daemon.connect()) as api:
        assert arena.containers
        for container in arena.containers:
            rows = api.top(container, "-eo pid,ppid")["Processes"]
            parents = {int(pid): int(parent) for pid, parent in rows}
            (supervisor,) = (pid for pid, parent in parents.items() if parent not in parents)
            (zygote,) = (pid for pid, parent in parents.items() if parent == supervisor)
            children = [pid for pid, parent in parents.items() if parent == zygote]
            assert len(children) <= MOST_CHILDREN, "a process was left behind"
            forks = [pid for pid, parent in parents.items() if parent in children]
            assert len(forks) <= MOST_FORKS, "a judge's fork was left behind"
            assert len(parents) == 2 + len(children) + len(forks)


def _children(process: int) -> list[int]:
    return [
        int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    ]


def _listen(family: int, address: object) -> socket.socket:
    listener = socket.socket(family)
    listener.bind(address)
    listener.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.sendall(CANARY.encode())
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    return listener
