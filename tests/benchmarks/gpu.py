"""Measure a DPO step on one GPU against TRL 1.16, on models of real shapes with random weights.

    python tests/benchmarks/gpu.py                    0.5B, 1.5B and 7B NF4; about 7 minutes
    python tests/benchmarks/gpu.py --models 0.5b      one of them
    python tests/benchmarks/gpu.py --models tiny tiny-nf4 --steps 2    a smoke test

The protocol is that of dpo_step.py: same ids, batches, adapter and optimizer, an equality gate
before any ratio. Each side builds the model anew. TRL runs under bfloat16 autocast, its default.
Sides: `trl_default` (activations recomputed, reference on the fly, its defaults) against `ours`,
which recomputes nothing, and `ours_lean`, which recomputes too; `trl_tuned` (nothing recomputed,
reference computed before) against `ours_cached`; `ours_plain` is ours without FlexAttention,
packing and fused layers. Memory is the allocator's peak above the loaded model.

The gate has two parts, for two sides that compute the same in bfloat16 differ by its rounding:
both score pairs one by one in float32 as well (NF4 weights as what they stand for) and must agree
there as closely as on a processor; and in bfloat16 ours must be within dpo_step.py's bounds of
those, or no further from them than TRL is (`from_exact`, explained there). The share of the
device's matrix rate counts 4 operations per weight and token that a side computes, 6 with the
reference on the fly, and the head's at scored tokens.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from dpo_step import EXACT_PAIRS, RESULTS, Plan, hold_against, pair_by_pair, summarise
from dpo_step_worker import run_side
from gpu_models import SHAPES, decoder_weights

# Median tokens of prompt and completion, pairs per step.
LENGTHS = {
    "0.5b": {"prompt": (1024, 256, 8)},
    "1.5b": {"prompt": (1024, 256, 8)},
    "7b-nf4": {"chat": (256, 384, 8)},
    "tiny": {"prompt": (256, 64, 4)},
    "tiny-nf4": {"prompt": (256, 64, 4)},
}
PAIRS = (("trl_default", "ours"), ("trl_tuned", "ours_cached"), ("trl_default", "ours_lean"))
# Row batches in float32, which is there to be compared and not to be fast.
EXACT_TOKENS = 4096


def main() -> None:
    """Run every side of every model and print ratios; results are written after each pair."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=list(SHAPES)[:3])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1, help="runs of each side: A-B, B-A, ...")
    parser.add_argument("--micro-tokens", type=int, default=16_384, help="our row batches")
    parser.add_argument("--lean-tokens", type=int, default=16_384, help="those of ours_lean")
    parser.add_argument("--exact-pairs", type=int, default=EXACT_PAIRS, help="scored in float32")
    parser.add_argument("--plain", action="store_true", help="also ours without GPU kernels")
    parser.add_argument("--json", type=Path, default=RESULTS / "gpu.json")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu.py: no CUDA device is visible; nothing was measured")
        return
    report: dict[str, object] = {"machine": describe_device(), "rows": []}
    rows: list[dict[str, object]] = []
    for model in options.models:
        for mix, (prompt, completion, batch) in LENGTHS[model].items():
            with tempfile.TemporaryDirectory() as workspace:
                plan = Plan(
                    side="",
                    model=model,
                    dtype="bfloat16",
                    prompt_tokens=prompt,
                    completion_tokens=completion,
                    batch=batch,
                    warmup=options.warmup,
                    steps=options.steps,
                    learning_rate=1e-4,
                    micro_tokens=options.micro_tokens,
                    seed=0,
                    workspace=workspace,
                    device="cuda",
                )
                for row in measure(plan, mix, options):
                    rows.append(row)
                    report["rows"] = rows
                    options.json.write_text(json.dumps(report, indent=1) + "\n")
    rate = report["machine"]["matrix_tflops"]
    print(f"{report['machine']['device']}: {rate} TFLOP/s in bfloat16 products")
    for row in rows:
        print_row(row, rate)
    print(f"written to {options.json}")
    if not all(row["gate"]["passed"] for row in rows):
        sys.exit("the equality gate failed: the ratios above do not count")


def measure(plan: Plan, mix: str, options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yield one row per peer, and one for ours without kernels."""
    pairs = [*PAIRS, ("trl_tuned", "ours_plain")] if options.plain else list(PAIRS)
    one_by_one = pair_by_pair(plan, options.exact_pairs)
    exactly = replace(one_by_one, dtype="float32", micro_tokens=EXACT_TOKENS)
    theirs, exact = (run(replace(exactly, side=side)) for side in ("trl_default", "ours_plain"))
    done: dict[str, list[dict[str, object]]] = {}
    scored: dict[str, dict[str, object]] = {}
    for pair in pairs:
        for number in range(options.repeats):
            for side in pair if number % 2 == 0 else reversed(pair):
                if len(done.setdefault(side, [])) <= number:
                    tokens = options.lean_tokens if side == "ours_lean" else plan.micro_tokens
                    done[side].append(run(replace(plan, side=side, micro_tokens=tokens)))
        row = summarise(mix, plan.dtype, *pair, [each for side in pair for each in done[side]])
        row = {"model": plan.model, **row}
        for side in pair:
            if side not in scored:
                scored[side] = run(replace(one_by_one, side=side))
        hold_against(row, [scored[side] for side in pair], [theirs, exact])
        print_row(row, None)
        yield row


def run(plan: Plan) -> dict[str, object]:
    """Run one side and give back what it held on the device."""
    began = time.perf_counter()
    result = run_side(asdict(plan))
    gc.collect()
    torch.cuda.empty_cache()
    print(f"{plan.model} {plan.side}: {time.perf_counter() - began:.0f} s", flush=True)
    return result


def describe_device() -> dict[str, object]:
    """Return the GPU's name and the rate of a large bfloat16 product, measured."""
    import transformers
    import trl

    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(10):
        left @ right
    end.record()
    torch.cuda.synchronize()
    return {
        "device": torch.cuda.get_device_name(),
        "matrix_tflops": round(10 * 2 * 8192**3 / begin.elapsed_time(end) / 1e9),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
    }


def share_of_rate(row: dict[str, object], side: str, rate: float) -> float:
    """Return the operations a side needs at least, per second, over the measured rate."""
    layers, head = decoder_weights(row["model"])
    run = next(run for run in row["runs"] if run["side"] == side)
    seconds = sorted(s for each in row["runs"] if each["side"] == side for s in each["step_s"])
    passes = 4 if side in ("trl_tuned", "ours_cached") else 6
    work = passes * (layers * run["tokens_per_step"] + head * run["scored_per_step"])
    return work / seconds[len(seconds) // 2] / (rate * 1e12)


def print_row(row: dict[str, object], rate: float | None) -> None:
    """Print one comparison: time, memory, and the share of the device's rate when it is known."""
    verdict = "passed" if row["gate"]["passed"] else f"FAILED {row['gate']}"
    shares = (
        ""
        if rate is None
        else "  of rate "
        + " / ".join(f"{share_of_rate(row, row[side], rate):.2f}" for side in ("peer", "ours"))
    )
    print(
        f"{row['model']:<10}{row['mix']:<8}{row['peer']:<12}{row['ours']:<12}"
        f"{row['speed_ratio']:>6}x memory {row['memory_ratio']:>5}x  {row['pair_tokens_per_s']}  "
        f"{row['peak_above_model_mb']} MB{shares}  gate {verdict}  {row.get('from_exact', '')}",
        flush=True,
    )


if __name__ == "__main__":
    main()
