"""Whatever dies in the middle of 2,000 requests, each is answered once, and rightly."""

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from trillium_sandbox import Limits, Request
from trillium_sandbox.docker import backend as backend_module
from trillium_sandbox.docker import daemon
from trillium_sandbox.docker.backend import MAX_DEATHS, DockerBackend

pytestmark = pytest.mark.slow

N_REQUESTS = 2000
RIGHT, WRONG = b"def f(x): return x + 1", b"def f(x): return x"
TESTS = ("assert f(1) == 2",)


class PrivateEngine:
    """A Docker engine of this test's own, with the sandbox's image, that may be killed."""

    def __init__(self, image):
        self.folder = Path(tempfile.mkdtemp(prefix="trillium-dockerd-"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self.start()
        saved = subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE)
        self.docker("load", stdin=saved.stdout)
        saved.stdout.close()
        assert saved.wait() == 0

    def start(self):
        (self.folder / "pid").unlink(missing_ok=True)
        places = [f"--{name}={self.folder / name}" for name in ("data-root", "exec-root")]
        hosts = [f"--host=unix://{self.folder / 'socket'}", f"--host={self.host}"]
        alone = [
            f"--pidfile={self.folder / 'pid'}",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["dockerd", *alone, *places, *hosts],
                stdout=log,
                stderr=log,
            )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", self.host)
            for _ in range(600):
                with contextlib.suppress(Exception), contextlib.closing(daemon.connect()):
                    return
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(0.05)  # also ends the wait for one that cannot start
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def kill(self):
        """Kill the engine, and the containerd that it started, which its successor might adopt."""
        self.process.kill()
        self.process.wait()
        place = self.folder / "exec-root" / "containerd"
        with contextlib.suppress(ProcessLookupError):
            containerd = os.pidfd_open(int((place / "containerd.pid").read_text()))
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(containerd, signal.SIGKILL)
            select.select([containerd], [], [])
            os.close(containerd)
        for left in ("containerd.pid", "containerd.sock", "containerd.sock.ttrpc"):
            (place / left).unlink(missing_ok=True)

    def docker(self, *words, stdin=None):
        command = ["docker", "--host", f"unix://{self.folder / 'socket'}", *words]
        ended = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=True)
        return ended.stdout

    def close(self):
        with contextlib.suppress(subprocess.CalledProcessError):
            left = self.docker("ps", "--all", "--quiet").split()
            if left:
                self.docker("rm", "--force", *left)
        self.process.terminate()
        self.process.wait()
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for place in sorted(mounts, reverse=True):
            if place.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "--lazy", place], check=True)
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module")
def engine(docker_image):
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("a private engine takes root and dockerd")
    private = PrivateEngine(docker_image)
    yield private
    private.close()


@pytest.fixture
def remote(engine, monkeypatch):
    """Let the docker backend find the private engine, over TCP."""
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    return engine


def requests():
    for n in range(N_REQUESTS):
        yield Request(str(n), "function", WRONG if n % 7 == 0 else RIGHT, TESTS, "f")


def run_while(backend, strike, every):
    """Run all requests, call `strike` after every so many replies, and check the counts."""
    counts = {"pass": 0, "fail": 0}
    for n, reply in enumerate(backend.run(requests())):
        assert reply.id == str(n)
        assert reply.status == ("fail" if n % 7 == 0 else "pass"), reply
        counts[reply.status] += 1
        if n % every == every // 2:
            strike()
    assert counts == {"pass": N_REQUESTS - 286, "fail": 286}


def test_killing_containers_loses_no_request(docker_image):
    with contextlib.closing(daemon.connect()) as api, DockerBackend(n_workers=2) as backend:
        run_while(backend, lambda: api.kill(backend.containers[-1]), 500)
        assert backend.n_restarts == 4


def test_killing_zygotes_loses_no_request_and_replaces_their_containers(docker_image):
    if os.geteuid() != 0 or "DOCKER_HOST" in os.environ:
        pytest.skip("only root of the engine's own machine can kill inside a container")
    met = set()
    with contextlib.closing(daemon.connect()) as api, DockerBackend(n_workers=2) as backend:

        def strike():
            unstruck = set(backend.containers) - met
            if len(met) == 4 or not unstruck:  # enough, or the successors are still starting
                return
            container = unstruck.pop()
            met.add(container)
            rows = api.top(container, "-eo pid,ppid")["Processes"]
            parents = {int(pid): int(parent) for pid, parent in rows}
            (supervisor,) = (pid for pid, parent in parents.items() if parent not in parents)
            zygote = min(pid for pid, parent in parents.items() if parent == supervisor)
            os.kill(zygote, signal.SIGKILL)

        run_while(backend, strike, 100)
        assert len(met) == 4
        while met & set(backend.containers):  # the last one's successor may still be starting
            (reply,) = backend.run([Request("more", "function", RIGHT, TESTS, "f")])
            assert reply.status == "pass"


def test_killing_the_engine_loses_no_request(remote):
    returns = []

    def strike():
        remote.kill()
        returns.append(threading.Timer(0.5, remote.start))
        returns[0].start()

    with DockerBackend(n_workers=2) as backend:
        run_while(backend, strike, N_REQUESTS)
        returns[0].join()
        assert backend.n_restarts >= 1
    assert remote.docker("ps", "--all", "--quiet") == ""


def test_an_engine_that_stays_away_fails_what_waits_and_serves_again_when_it_is_back(
    remote, monkeypatch
):
    monkeypatch.setattr(backend_module, "PATIENCE_S", 1.0)
    with DockerBackend(n_workers=1) as backend:
        replies = backend.run(requests())
        first = [next(replies) for _ in range(50)]
        remote.kill()
        rest = list(replies)
        assert [reply.id for reply in first + rest] == [str(n) for n in range(N_REQUESTS)]
        failed = [reply for reply in rest if reply.sandbox_failure]
        assert failed
        assert b"no container for 1 s: docker: no engine answers at tcp://" in failed[0].stderr
        # What was answered before the end is right; nothing was answered wrongly after it.
        assert all(
            reply.status == ("fail" if int(reply.id) % 7 == 0 else "pass")
            for reply in first + rest
            if not reply.sandbox_failure
        )
        remote.start()
        while (reply := next(backend.run(requests()))).sandbox_failure:
            pass
        assert reply.status == "fail"


def test_a_request_that_kills_its_containers_is_a_failure_of_the_sandbox(docker_image):
    slow = Request("slow", "script", b"import time; time.sleep(60)", limits=Limits(wall_s=99))
    with contextlib.closing(daemon.connect()) as api, DockerBackend(n_workers=1) as backend:
        ticket = backend.submit(slow)
        other = backend.submit(Request("next", "function", RIGHT, TESTS, "f"))
        replies, killed = {}, set()
        while len(replies) < 2:
            for container in set(backend.containers) - killed:
                if len(killed) < MAX_DEATHS:
                    killed.add(container)
                    api.kill(container)
            replies |= backend.collect(0.2)
    assert replies[ticket].status == "sandbox_error"
    assert b"3 containers died" in replies[ticket].stderr
    assert replies[other].status == "pass"


def test_containers_end_when_their_user_is_killed(docker_image):
    program = (
        "import os, signal\nfrom trillium_sandbox import open_backend\n"
        "b = open_backend('docker', n_workers=2)\nprint(*b.containers, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=False)
    containers = ended.stdout.decode().split()
    assert len(containers) == 2
    with contextlib.closing(daemon.connect()) as api:
        for container in containers:
            with contextlib.suppress(daemon.APIError):  # removed already
                api.wait(container, timeout=30, condition="removed")
        assert not set(containers) & {row["Id"] for row in api.containers(all=True)}
