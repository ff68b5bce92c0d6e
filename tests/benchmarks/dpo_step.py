"""Measure a DPO step against TRL 1.16: throughput and memory, at equal loss.

    python tests/benchmarks/dpo_step.py --quick          about 4 minutes on 2 idle cores
    python tests/benchmarks/dpo_step.py                  all mixes and variants, about 4 hours
    python tests/benchmarks/dpo_step.py --dtypes float32 --steps 4    an hour of it
    python tests/benchmarks/dpo_step.py --dtypes float32 --peers trl_default --steps 1 --warmup 0
        --json FILE                                      memory alone, ten minutes
    python tests/benchmarks/dpo_step.py --model tiny     a smoke test of the script itself

Both sides get the same token ids in the same batches, the same weights, one adapter with random B,
AdamW, a constant learning rate, clipping at 1, no dropout. Each side runs in a process of its own,
in the order A-B-B-A. Timing counts only after the equality gate: loss of the first step, loss curve
and gradient of the first step. Two sides that compute the same in bfloat16 differ by its rounding:
there both also score pairs one by one, weights unmoved, in float32 on the same rounded weights and
must agree, and in bfloat16 ours must be within the bounds of that, or no further from it than TRL
is (`from_exact`: root mean square over the pairs' losses, and the sum of their gradients; two sides
of one precision differ by up to a quarter with so many pairs). Memory is the peak of the process
above what it held with the model loaded.
Variants: `trl` (reference on the fly, checkpointing off), `trl_default` (checkpointing on,
its default), `trl_tuned` (reference precomputed, checkpointing off), `ours` (reference on the fly),
`ours_cached` (reference precomputed). The time to precompute is reported beside the step.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

STILL = 1e-12  # a learning rate that moves no weight; the worker adds gradients up at it
HERE = Path(__file__).resolve()
WORKER = HERE.with_name("dpo_step_worker.py")
RESULTS = HERE.with_name("results")

# Median tokens of prompt and completion: few-shot mathematics, balanced, chat.
MIXES = {"prompt": (384, 64), "balanced": (160, 160), "completion": (64, 256)}
QUICK_MIX = {"prompt": (256, 64)}

PEERS = ("trl", "trl_default", "trl_tuned")

# |loss| at step 0, along the curve, and 1 - cosine of the first gradient.
GATES = {"float32": (1e-4, 1e-3, 1e-5), "bfloat16": (5e-3, 2e-2, 1e-3)}
# Pairs in float32 that bfloat16 is held against, and what they tell two precisions apart by.
EXACT_PAIRS = 24
TOLERANCE = 1.25


@dataclass(frozen=True)
class Plan:
    """What one worker process runs."""

    side: str
    model: str
    dtype: str
    prompt_tokens: int
    completion_tokens: int
    batch: int
    warmup: int
    steps: int
    learning_rate: float
    micro_tokens: int
    seed: int
    workspace: str
    device: str = "cpu"


def main() -> None:
    """Run the plan that the command line asks for and print ratios."""
    options = parse_options()
    RESULTS.mkdir(exist_ok=True)
    name = f"{options.model}-quick" if options.quick else options.model
    path = options.json or RESULTS / f"dpo_step-{name}.json"
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as workspace:
        for dtype in options.dtypes:
            for mix, (prompt, completion) in options.mixes.items():
                rows += compare(options, mix, dtype, prompt, completion, workspace)
                report = {"machine": describe_machine(), "options": describe(options), "rows": rows}
                path.write_text(json.dumps(report, indent=1) + "\n")
    print_table(rows)
    print(f"written to {path}")
    if not all(row["gate"]["passed"] for row in rows):
        sys.exit("the equality gate failed: the ratios above do not count")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one mix, float32, few steps")
    parser.add_argument("--model", choices=["smollm2", "tiny"], default="smollm2")
    parser.add_argument("--dtypes", nargs="+", choices=list(GATES), default=list(GATES))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch", type=int, default=2, help="pairs per step")
    parser.add_argument("--micro-tokens", type=int, default=512, help="our row batches")
    parser.add_argument("--steps", type=int, help="steps that count, after warming up")
    parser.add_argument("--warmup", type=int)
    parser.add_argument("--peers", nargs="+", choices=list(PEERS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.mixes = QUICK_MIX if options.quick else MIXES
    options.dtypes = ["float32"] if options.quick else options.dtypes
    if options.warmup is None:
        options.warmup = 1 if options.quick or options.model == "tiny" else 2
    default = 3 if options.model == "tiny" else 2 if options.quick else 10
    options.steps = options.steps or default
    options.peers = options.peers or (["trl"] if options.quick else list(PEERS))
    if options.model == "tiny":
        options.mixes = {"tiny": (48, 16)}
    return options


def compare(
    options: argparse.Namespace, mix: str, dtype: str, prompt: int, completion: int, workspace: str
) -> list[dict[str, object]]:
    """Run each peer against ours, A-B-B-A, and return one row per pair of sides."""
    plan = Plan(
        side="",
        model=options.model,
        dtype=dtype,
        prompt_tokens=prompt,
        completion_tokens=completion,
        batch=options.batch,
        warmup=options.warmup,
        steps=options.steps,
        learning_rate=1e-4,
        micro_tokens=options.micro_tokens,
        seed=0,
        workspace=workspace,
    )
    exact = []
    if dtype == "bfloat16":
        one_by_one = pair_by_pair(plan, EXACT_PAIRS)
        exactly = replace(one_by_one, dtype="widened")
        exact = [run_worker(replace(exactly, side=s), options.threads) for s in ("trl", "ours")]
    rows = []
    for peer in options.peers:
        mine = "ours_cached" if peer == "trl_tuned" else "ours"
        order = [peer, mine, mine, peer]
        runs = [run_worker(replace(plan, side=side), options.threads) for side in order]
        rows.append(summarise(mix, dtype, peer, mine, runs))
        if exact:
            sides = [run_worker(replace(one_by_one, side=s), options.threads) for s in order[:2]]
            hold_against(rows[-1], sides, exact)
    if options.quick:
        cached = run_worker(replace(plan, side="ours_cached"), options.threads)
        rows.append(summarise(mix, dtype, "trl", "ours_cached", [runs[0], cached, runs[3]]))
    return rows


def pair_by_pair(plan: Plan, n_pairs: int) -> Plan:
    """Return the plan of a run whose steps are the losses of single pairs, weights unmoved."""
    return replace(plan, batch=1, warmup=0, steps=n_pairs, learning_rate=STILL)


def run_worker(plan: Plan, threads: int) -> dict[str, object]:
    """Run one side in a fresh process; its last line is the result."""
    load = os.getloadavg()[0]
    print(f"{plan.dtype} {plan.prompt_tokens}/{plan.completion_tokens} {plan.side} ...", flush=True)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(WORKER), json.dumps(asdict(plan))],
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "CI": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{plan.side} failed:\n{done.stderr[-4000:]}")
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    seconds = time.perf_counter() - started
    return {**result, "side": plan.side, "load_before": load, "process_s": round(seconds, 1)}


def summarise(mix: str, dtype: str, peer: str, mine: str, runs: list[dict]) -> dict[str, object]:
    """Compare two sides: gate first, then medians over all their runs."""
    theirs = [run for run in runs if run["side"] == peer]
    ours = [run for run in runs if run["side"] == mine]
    step = {
        side: statistics.median(s for run in side_runs for s in run["step_s"])
        for side, side_runs in ((peer, theirs), (mine, ours))
    }
    cpu = [statistics.median(run["cpu_s_per_step"] for run in side) for side in (theirs, ours)]
    memory = [min(run["peak_mb"] - run["loaded_mb"] for run in side) for side in (theirs, ours)]
    return {
        "mix": mix,
        "dtype": dtype,
        "peer": peer,
        "ours": mine,
        "gate": gate(theirs[0], ours[0], dtype),
        "speed_ratio": round(step[peer] / step[mine], 2),
        "cpu_ratio": round(cpu[0] / cpu[1], 2),
        "memory_ratio": round(memory[1] / memory[0], 2),
        "pair_tokens_per_s": {
            side: round(theirs[0]["pair_tokens_per_step"] / seconds, 1)
            for side, seconds in step.items()
        },
        "peak_above_model_mb": {peer: round(memory[0]), mine: round(memory[1])},
        "runs": [{k: v for k, v in run.items() if k != "gradient"} for run in runs],
    }


def gate(theirs: dict, ours: dict, dtype: str) -> dict[str, object]:
    """Say whether both sides train the same thing."""
    import torch

    start, curve, cosine_gap = GATES[dtype]
    differences = [abs(a - b) for a, b in zip(theirs["losses"], ours["losses"], strict=True)]
    left, right = (
        torch.load(run["gradient"], weights_only=True).double() for run in (theirs, ours)
    )
    cosine = torch.nn.functional.cosine_similarity(left, right, dim=0).item()
    return {
        "step_0": differences[0],
        "curve": max(differences),
        "gradient_cosine": cosine,
        "passed": theirs["ids_sha256"] == ours["ids_sha256"]
        and differences[0] <= start
        and max(differences) <= curve
        and 1 - cosine <= cosine_gap,
    }


def hold_against(row: dict[str, object], sides: list[dict], exact: list[dict]) -> None:
    """Judge a row in bfloat16 by the distance of both sides, TRL's first, from float32."""
    same = gate(*exact, "float32")
    distances = {side["side"]: distance(side, exact[1]) for side in sides}
    row["from_exact"] = distances
    row["gate"] = {
        "between": {key: row["gate"][key] for key in ("step_0", "curve", "gradient_cosine")},
        "float32": same,
        "passed": same["passed"] and is_as_near(*distances.values()),
    }


def distance(side: dict, exact: dict) -> dict[str, float]:
    """Return how far a side's losses (root mean square) and gradient are from those in float32."""
    import torch

    left, right = (torch.load(one["gradient"], weights_only=True).double() for one in (side, exact))
    cosine = torch.nn.functional.cosine_similarity(left, right, dim=0)
    squares = [(a - b) ** 2 for a, b in zip(side["losses"], exact["losses"], strict=True)]
    apart = (sum(squares) / len(squares)) ** 0.5
    return {"losses": apart, "one_less_cosine": 1 - float(cosine)}


def is_as_near(theirs: dict[str, float], ours: dict[str, float]) -> bool:
    """Say whether ours is within the bounds of bfloat16, or no further from float32 than theirs."""
    bounds = dict(zip(("losses", "one_less_cosine"), GATES["bfloat16"][::2], strict=True))
    return all(ours[key] <= max(bounds[key], TOLERANCE * theirs[key]) for key in bounds)


def describe_machine() -> dict[str, object]:
    """Return what the figures were measured on."""
    import peft
    import torch
    import transformers
    import trl

    info = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    return {
        "processor": names[0] if names else "unknown",
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
        "peft": peft.__version__,
    }


def describe(options: argparse.Namespace) -> dict[str, object]:
    """Return the options as they were resolved."""
    return {**vars(options), "json": None}


def print_table(rows: list[dict[str, object]]) -> None:
    """Print one line per comparison."""
    print(f"{'mix':<11}{'dtype':<10}{'peer':<13}{'ours':<13}{'speed':>7}{'memory':>8}  gate")
    for row in rows:
        verdict = "passed" if row["gate"]["passed"] else "FAILED"
        print(
            f"{row['mix']:<11}{row['dtype']:<10}{row['peer']:<13}{row['ours']:<13}"
            f"{row['speed_ratio']:>6}x{row['memory_ratio']:>7}x  {verdict}"
        )


if __name__ == "__main__":
    main()
