"""Programs per second over HTTP and without it, on the same batch, in one run.

    python tests/benchmarks/sandbox_http.py [--programs 1000] [--rounds 16] [--json FILE]

About a minute. A service runs in a process of its own, client and service on this machine's cores;
embedded and HTTP take turns in A-B-B-A order, and the median over the rounds' own ratios counts,
because the rate of both changes with the machine's other guests. Success: each line of the table
ends with "held".
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from sandbox_peers import SOLUTION, TESTS
from trillium_sandbox import Backend, Request, open_backend

REQUIRED = 0.9


def batch(mode: str, n_programs: int) -> list[Request]:
    """Return a batch of the same program, alone or split from its tests."""
    if mode == "plain":
        source = (SOLUTION + "\n".join(TESTS)).encode()
        return [Request(str(number), "script", source) for number in range(n_programs)]
    source = SOLUTION.encode()
    return [
        Request(str(number), "function", source, TESTS, "intersperse")
        for number in range(n_programs)
    ]


def rate(backend: Backend, requests: list[Request]) -> float:
    """Return programs per second of one batch."""
    started = time.perf_counter()
    for reply in backend.run(requests):
        if reply.status not in ("ok", "pass"):
            raise SystemExit(f"the program failed: {reply}")
    return len(requests) / (time.perf_counter() - started)


def measure(n_programs: int, n_rounds: int) -> dict[str, dict[str, float]]:
    """Return the median rates of both ways, for both modes."""
    command = [sys.executable, "-m", "trillium_sandbox", "serve", "--port", "0"]
    service = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert service.stderr is not None
    url = re.findall(r"http://\S+", service.stderr.readline())[0]
    rows = {}
    try:
        with open_backend("embedded") as embedded, open_backend("http", url=url) as http:
            for mode in ("plain", "split"):
                requests = batch(mode, n_programs)
                rates: dict[str, list[float]] = {"embedded": [], "http": []}
                turns: list[tuple[str, Backend]] = [("embedded", embedded), ("http", http)]
                for _ in range(n_rounds):
                    for name, backend in turns:
                        rates[name].append(rate(backend, requests))
                    turns.reverse()
                rows[mode] = {name: statistics.median(found) for name, found in rates.items()}
                pairs = zip(rates["http"], rates["embedded"], strict=True)
                rows[mode]["ratio"] = statistics.median(
                    over_http / alone for over_http, alone in pairs
                )
    finally:
        service.terminate()
        service.wait()
    return rows


def main() -> None:
    """Measure, print the table, check the required ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=1000, help="size of a batch")
    parser.add_argument("--rounds", type=int, default=16, help="batches of each way and mode")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    rows = measure(options.programs, options.rounds)
    for mode, row in rows.items():
        word = "held" if row["ratio"] >= REQUIRED else "MISSED"
        print(
            f"{mode:<6} embedded {row['embedded']:8.1f}/s   http {row['http']:8.1f}/s   "
            f"http / embedded: {row['ratio']:.2f} (at least {REQUIRED}) {word}"
        )
    if options.json:
        machine = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
        document = {"machine": machine, "batch": options.programs, "modes": rows}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    raise SystemExit(any(row["ratio"] < REQUIRED for row in rows.values()))


if __name__ == "__main__":
    main()
