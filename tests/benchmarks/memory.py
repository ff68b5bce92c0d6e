"""Compare the peak that `trillium train --dry-run` foretells with the one a run reaches.

    python tests/benchmarks/memory.py                   three mixes, SmolLM2-135M
    python tests/benchmarks/memory.py --dtypes bfloat16 --steps 2

For each mix and precision a file of pairs is written, asked about with `--dry-run`, and trained on
for a few steps in a process of its own, whose largest resident size is read. Exit code 1 when a
prediction is more than 20 % off.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from dpo_step import MIXES, RESULTS, describe_machine
from dpo_step_worker import WORDS

ALLOWED = 0.2
# Prints the largest resident size of the process that it becomes.
CHILD = """
import resource, sys
from trillium.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def main() -> None:
    """Predict, train and compare; print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mixes", nargs="+", choices=list(MIXES), default=list(MIXES))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--json", type=Path, default=RESULTS / "memory-smollm2.json")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for mix in options.mixes:
            write_pairs(Path(folder) / f"{mix}.jsonl", *MIXES[mix], n_pairs=8 * options.steps)
            for dtype in options.dtypes:
                rows.append(compare(Path(folder), mix, dtype))
                print(rows[-1], flush=True)
    options.json.write_text(
        json.dumps({"machine": describe_machine(), "rows": rows}, indent=1) + "\n"
    )
    print(f"written to {options.json}")
    if any(abs(row["ratio"] - 1) > ALLOWED for row in rows):
        sys.exit(f"a prediction is more than {ALLOWED:.0%} off")


def write_pairs(path: Path, n_prompt: int, n_completion: int, *, n_pairs: int) -> None:
    """Write pairs of random words of about these lengths in tokens."""
    rng = random.Random(0)

    def write(median: int) -> str:
        return " ".join(rng.choices(WORDS, k=round(median * rng.uniform(0.7, 1.3))))

    with path.open("w") as file:
        for number in range(n_pairs):
            row = {"id": str(number), "prompt": write(n_prompt) + " "}
            row |= {side: write(n_completion) for side in ("chosen", "rejected")}
            file.write(json.dumps(row) + "\n")


def compare(folder: Path, mix: str, dtype: str) -> dict[str, object]:
    """Return the predicted and the reached peak in GiB, and their ratio."""
    arguments = ["train", "minimal", f"data.path={folder / mix}.jsonl", f"policy.dtype={dtype}"]
    arguments += [f"output={folder / mix}-{dtype}"]
    said = run([*arguments, "--dry-run"])
    predicted = float(re.search(r"memory: about ([\d.]+) GiB", said)[1])
    reached = int(re.search(r"^peak (\d+)$", run(arguments), re.M)[1]) / 2**30
    return {
        "mix": mix,
        "dtype": dtype,
        "predicted_gib": predicted,
        "reached_gib": round(reached, 2),
        "ratio": round(predicted / reached, 3),
    }


def run(arguments: list[str]) -> str:
    """Run a command line in a process of its own; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "CI": "1", "COLUMNS": "400"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(
            f"trillium {' '.join(arguments)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout + done.stderr


if __name__ == "__main__":
    main()
