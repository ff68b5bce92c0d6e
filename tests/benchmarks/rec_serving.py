"""Latency and throughput of `trillium rec serve` under a bounded load, one user at a time and many.

    python tests/benchmarks/rec_serving.py RUN [--seconds 5] [--json FILE]

RUN is the folder of a finished run. A service with one thread runs in a process of its own. The
client, on the same machine, keeps 1, 8 and then 32 questions open, each over a connection of its
own, for some seconds each, and after that sends questions at half the rate that 8 reached.
Histories are those of the test users. Latencies hold the client's own share of the machine.
`single` is the same load with batches of one question. Success: every reply is 200.
"""

import argparse
import http.client
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from trillium_rec.served_run import ServedRun


@contextmanager
def service(run: Path, max_batch: int) -> Iterator[int]:
    """Serve a run and return the port."""
    main = "from trillium.cli import main; main()"
    options = ["--port", "0", "--threads", "1", "--max-batch", str(max_batch)]
    command = [sys.executable, "-c", main, "rec", "serve", str(run), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            found = re.search(r"on http://127\.0\.0\.1:(\d+)", line)
            if found is not None:
                break
        else:
            raise SystemExit("the service did not start")
        yield int(found[1])
        process.terminate()


def load(
    port: int, bodies: Sequence[bytes], n_open: int, seconds: float, rate: float = 0.0
) -> dict[str, float]:
    """Keep `n_open` questions open for some seconds; `rate` bounds questions per second, 0 not."""
    latencies: list[float] = []
    failures: list[int] = []
    numbers = itertools.count()
    begun = time.perf_counter()

    def ask() -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            for number in numbers:
                due = begun + (number / rate if rate else 0)
                now = time.perf_counter()
                if max(now, due) > begun + seconds:
                    return
                time.sleep(max(0.0, due - now))
                # A question that could not be sent when it was due waited all the same.
                started = due if rate else time.perf_counter()
                connection.request("POST", "/recommend", bodies[number % len(bodies)])
                reply = connection.getresponse()
                reply.read()
                latencies.append(time.perf_counter() - started)
                if reply.status != 200:
                    failures.append(reply.status)

    threads = [threading.Thread(target=ask) for _ in range(n_open)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - begun
    milliseconds = 1000 * np.array(latencies)
    return {
        "open": n_open,
        "asked_per_s": rate,
        "answers": len(latencies),
        "failures": len(failures),
        "answers_per_s": len(latencies) / elapsed,
        "p50_ms": float(np.percentile(milliseconds, 50)),
        "p99_ms": float(np.percentile(milliseconds, 99)),
    }


def measure(run: Path, seconds: float) -> list[dict[str, float | str]]:
    """Load the service in every way and return a row for each."""
    found = ServedRun.open(run)
    ids, histories = found.data.positive.catalogue.ids, found.data.split.test.histories
    users = range(min(1000, histories.n_sequences))
    bodies = [
        json.dumps({"history": [ids[item] for item in histories.of(user).tolist()]}).encode()
        for user in users
    ]
    rows: list[dict[str, float | str]] = []
    for name, max_batch in (("batched", 64), ("single", 1)):
        with service(run, max_batch) as port:
            load(port, bodies, 4, 1.0)
            loads = [(1, 0.0), (8, 0.0), (32, 0.0)]
            for n_open, rate in loads:
                rows.append({"service": name, **load(port, bodies, n_open, seconds, rate)})
            reached = float(rows[-2]["answers_per_s"])
            rows.append({"service": name, **load(port, bodies, 8, seconds, reached / 2)})
    return rows


def main() -> None:
    """Measure, print the table, say whether a question failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = measure(options.run, options.seconds)
    print(
        f"{'service':8} {'open':>4} {'asked/s':>8} {'answers/s':>9} {'p50':>8} {'p99':>8}  failed"
    )
    for row in rows:
        print(
            f"{row['service']:8} {row['open']:>4} {row['asked_per_s']:>8.0f} "
            f"{row['answers_per_s']:>9.0f} {row['p50_ms']:>6.1f}ms {row['p99_ms']:>6.1f}ms  "
            f"{row['failures']}"
        )
    if options.json:
        machine = {"cpus": os.cpu_count(), "load_average": os.getloadavg()[0]}
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")
    n_failed = sum(float(row["failures"]) for row in rows)
    if n_failed:
        raise SystemExit(f"MISSED: {n_failed:.0f} questions failed")


if __name__ == "__main__":
    main()
