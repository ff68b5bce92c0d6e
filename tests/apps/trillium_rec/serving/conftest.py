import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys

import pytest


class Service:
    """A `trillium rec serve` in a process of its own."""

    def __init__(self, *arguments, env=None):
        command = [sys.executable, "-c", "from trillium.cli import main; main()", "rec", "serve"]
        self.process = subprocess.Popen(
            [*command, *map(str, arguments), "--port", "0"],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        said = ""
        for line in self.process.stderr:
            said += line
            found = re.search(r"on http://127\.0\.0\.1:(\d+)", line)
            if found is not None:
                break
        else:
            raise AssertionError(said)
        self.port = int(found[1])

    def ask(self, method, path, body=None, **headers):
        """Return status and body of one request; JSON where it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        with contextlib.closing(connection):
            connection.request(method, path, raw, headers)
            reply = connection.getresponse()
            text = reply.read()
        is_json = reply.headers["content-type"] == "application/json"
        return reply.status, json.loads(text) if is_json else text.decode()

    def recommend(self, **body):
        status, answer = self.ask("POST", "/recommend", body)
        assert status == 200, answer
        return answer

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)
        self.process.stderr.close()
        return self.process.returncode


@pytest.fixture(scope="module")
def start():
    """Return what starts services; all are stopped at the end."""
    started = []

    def begin(*arguments, env=None):
        started.append(Service(*arguments, env=env))
        return started[-1]

    yield begin
    for service in started:
        if service.process.poll() is None:
            service.stop()


@pytest.fixture(scope="module")
def service(start, finished_run):
    """A service of the finished run."""
    return start(finished_run, "--max-waiting", "64")
