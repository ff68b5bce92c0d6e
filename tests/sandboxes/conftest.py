"""One running backend for the tests of this folder, and services in processes of their own."""

import http.client
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from trillium_sandbox import Backend, Reply, Request, open_backend


@dataclass
class ServiceProcess:
    """`trillium sandbox serve` on a free port of this machine, the same after a restart."""

    options: list[str] = field(default_factory=list)
    port: int = 0
    process: subprocess.Popen | None = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        command = [sys.executable, "-m", "trillium_sandbox", "serve", "--workers", "2"]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port), *self.options], stderr=subprocess.PIPE, text=True
        )
        line = self.process.stderr.readline()
        found = re.search(r"on http://127\.0\.0\.1:(\d+)$", line)
        assert found, line + self.process.stderr.read()
        self.port = int(found[1])
        return self

    def stop(self, number=signal.SIGTERM):
        """Send a signal and return (exit code, what was said since the start)."""
        self.process.send_signal(number)
        said = self.process.stderr.read()
        self.process.stderr.close()
        return self.process.wait(), said

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, method, path, body=None, **headers):
        """Return (status, headers, body) of one request."""
        connection = self.connect()
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        answered = response.status, dict(response.getheaders()), response.read()
        connection.close()
        return answered


@pytest.fixture(scope="session")
def backend() -> Iterator[Backend]:
    with open_backend("embedded", n_workers=2) as opened:
        yield opened


@pytest.fixture
def judge(backend: Backend) -> Callable[..., Reply]:
    """Return a function that runs tests against a candidate."""

    def run(source: str, *tests: str, entry_point: str | None = None) -> Reply:
        request = Request("one", "function", source.encode(), tests, entry_point)
        (reply,) = backend.run([request])
        return reply

    return run


@pytest.fixture(scope="module")
def start_service() -> Iterator[Callable[..., ServiceProcess]]:
    """Return a function that starts a service; all of them end with the module."""
    started: list[ServiceProcess] = []

    def start(*options: str) -> ServiceProcess:
        started.append(ServiceProcess(list(options)))
        return started[-1].start()

    yield start
    for service in started:
        if service.process.poll() is None:
            service.stop()
        service.process.stderr.close()
