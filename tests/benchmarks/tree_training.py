"""Measure DPO on search trees against the same pairs one by one, at equal loss.

    python tests/benchmarks/tree_training.py --quick         one mix, a step each: 4 minutes
    python tests/benchmarks/tree_training.py                 all mixes, about an hour
    python tests/benchmarks/tree_training.py --model tiny    a smoke test of the script itself

A search tree has four branches per prefix; the best branch goes on. `each`: at every prefix the
best branch is preferred to each of the other three. `disjoint`: best to worst and second to third,
so that no response is in two pairs. Both sides train on the same pairs in the same order with the
same adapter. Speed is path tokens per second: a pair has those of its two sequences, prompt and
earlier steps included.

    pairs     every pair alone, a row per sequence: nothing is shared (layout padded)
    siblings  every pair alone, its common prefix computed once (layout shared)
    tree      pairs of one tree computed together, every common prefix once

Each side runs in a process of its own, in the order A-B-B-A, on the processor. The ratio counts
only when losses and the first gradient agree.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve()
RESULTS = HERE.with_name("results")
N_BRANCHES = 4

# Median tokens of prompt and step, and steps from root to leaf.
MIXES = {"turns": (112, 48, 2), "lines": (112, 20, 4), "solutions": (112, 96, 1)}
# |loss| at step 0, along the curve, and 1 - cosine of the first gradient.
GATE = (1e-4, 1e-3, 1e-5)


@dataclass(frozen=True)
class Plan:
    """What one worker process runs; `batch` trees a step."""

    side: str
    model: str
    pairing: str
    prompt_tokens: int
    step_tokens: int
    depth: int
    batch: int
    warmup: int
    steps: int
    micro_tokens: int
    workspace: str
    learning_rate: float = 1e-4
    dtype: str = "float32"
    device: str = "cpu"


def main() -> None:
    """Run the plan that the command line asks for and print ratios."""
    options = parse_options()
    if options.worker:
        print(json.dumps(work(Plan(**json.loads(options.worker)))))
        return
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as workspace:
        rows = [
            compare(options, mix, pairing, workspace)
            for mix in (["turns"] if options.quick else MIXES)
            for pairing in (["disjoint"] if options.quick else ["disjoint", "each"])
        ]
    sys.path.insert(0, str(HERE.parent))
    from dpo_step import describe_machine

    report = {"machine": describe_machine(), "options": vars(options), "rows": rows}
    name = f"{options.model}-quick" if options.quick else options.model
    path = RESULTS / f"tree_training-{name}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print_table(rows)
    print(f"written to {path}")
    if not all(row["gate"]["passed"] for row in rows):
        sys.exit("the equality gate failed: the ratios above do not count")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one mix, few steps")
    parser.add_argument("--model", choices=["smollm2", "tiny"], default="smollm2")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch", type=int, default=1, help="trees per step")
    parser.add_argument("--micro-tokens", type=int, default=512, help="row batches of all sides")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(
    options: argparse.Namespace, mix: str, pairing: str, workspace: str
) -> dict[str, object]:
    """Run pairs, tree, tree, pairs; between them once pairs that share within themselves."""
    prompt, step, depth = MIXES[mix]
    is_short = options.quick or options.model == "tiny"
    plan = Plan(
        side="",
        model=options.model,
        pairing=pairing,
        prompt_tokens=prompt,
        step_tokens=step,
        depth=depth,
        batch=options.batch,
        warmup=1,
        steps=1 if is_short else 4,
        micro_tokens=options.micro_tokens,
        workspace=workspace,
    )
    middle = ["tree", "tree"] if options.quick else ["tree", "siblings", "tree"]
    order = ["pairs", *middle, "pairs"]
    runs = [run_worker(replace(plan, side=side), options.threads) for side in order]
    sides = {side: [run for run in runs if run["side"] == side] for side in order}
    seconds = {
        side: statistics.median(s for run in found for s in run["step_s"])
        for side, found in sides.items()
    }
    spent = {
        side: statistics.median(run["cpu_s_per_step"] for run in found)
        for side, found in sides.items()
    }
    counts = sides["tree"][0]
    return {
        "mix": mix,
        "pairing": pairing,
        "tokens": {"prompt": prompt, "step": step, "depth": depth},
        "gate": gate(sides["pairs"][0], sides["tree"][0]),
        "speed_ratio": round(seconds["pairs"] / seconds["tree"], 2),
        "cpu_ratio": round(spent["pairs"] / spent["tree"], 2),
        "speed_ratio_to_siblings": None
        if options.quick
        else round(seconds["siblings"] / seconds["tree"], 2),
        "path_tokens_per_s": {
            side: round(counts["path_tokens_per_step"] / each, 1) for side, each in seconds.items()
        },
        "path_tokens_per_computed_token": round(
            counts["path_tokens_per_step"] / counts["computed_tokens_per_step"], 2
        ),
        "runs": [{k: v for k, v in run.items() if k != "gradient"} for run in runs],
    }


def run_worker(plan: Plan, threads: int) -> dict[str, object]:
    """Run one side in a fresh process; its last line is the result."""
    load = os.getloadavg()[0]
    print(f"{plan.prompt_tokens}/{plan.step_tokens} {plan.pairing} {plan.side} ...", flush=True)
    done = subprocess.run(
        [sys.executable, str(HERE), "--worker", json.dumps(asdict(plan))],
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "CI": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{plan.side} failed:\n{done.stderr[-4000:]}")
    return {**json.loads(done.stdout.splitlines()[-1]), "side": plan.side, "load_before": load}


def gate(pairs: dict, tree: dict) -> dict[str, object]:
    """Say whether both sides train the same thing."""
    import torch

    start, curve, cosine_gap = GATE
    differences = [abs(a - b) for a, b in zip(pairs["losses"], tree["losses"], strict=True)]
    left, right = (torch.load(run["gradient"], weights_only=True).double() for run in (pairs, tree))
    cosine = torch.nn.functional.cosine_similarity(left, right, dim=0).item()
    return {
        "step_0": differences[0],
        "curve": max(differences),
        "gradient_cosine": cosine,
        "passed": pairs["paths"] == tree["paths"]
        and differences[0] <= start
        and max(differences) <= curve
        and 1 - cosine <= cosine_gap,
    }


def work(plan: Plan) -> dict[str, object]:
    """Load, train, measure one side."""
    import torch

    sys.path.insert(0, str(HERE.parent))
    import dpo_step_worker as shared

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    settings = {**asdict(plan), "seed": 0}
    model, tokenizer = shared.load_model(settings)
    groups = [
        make_pairs(plan, tokenizer, shared.WORDS, number)
        for number in range(plan.batch * (plan.warmup + plan.steps))
    ]
    trees = [tree for group in groups for tree in group]
    adapter = shared.load_adapter(settings, model)
    gradient = shared.new_path(settings, f"{plan.side}.pt")
    probe = shared.Probe(plan.warmup, gradient)
    trainer, collator = build(plan, settings, shared, model, tokenizer, adapter, trees, probe)
    computed = sum(int((rows.enter >= 0).sum()) for group in groups
                   for rows in collator.batch_rows(group))  # fmt: skip
    trainer.train()
    n_steps = len(probe.seconds)
    return {
        "losses": probe.losses,
        "step_s": probe.seconds[plan.warmup :],
        "cpu_s_per_step": (shared.cpu_seconds() - probe.cpu_start) / plan.steps,
        "gradient": str(gradient),
        "paths": [tree.path(index).digest for tree in trees for index in range(2)],
        "pairs_per_step": len(trees) / n_steps,
        "path_tokens_per_step": sum(tree.n_path_tokens for tree in trees) / n_steps,
        "computed_tokens_per_step": computed / n_steps,
    }


def make_pairs(plan: Plan, tokenizer: object, words: list[str], number: int) -> list:
    """Grow one search tree of random words and return its preferences as pairs, root first."""
    from trillium.trees import TokenPath, TokenTree

    rng = random.Random(f"{plan.prompt_tokens}/{number}")

    def write(n_tokens: int) -> tuple[int, ...]:
        size = round(n_tokens * rng.uniform(0.7, 1.3))
        text = " ".join(rng.choices(words, k=size + 8))
        return tuple(tokenizer(text, add_special_tokens=False).input_ids[:size])

    context, pairs = write(plan.prompt_tokens), []
    for depth in range(plan.depth):
        steps = [write(plan.step_tokens) for _ in range(N_BRANCHES)]
        chosen = [(0, 1), (0, 2), (0, 3)] if plan.pairing == "each" else [(0, 3), (1, 2)]
        for better, worse in chosen:
            paths = [
                TokenPath(context + steps[i], (False,) * len(context) + (True,) * len(steps[i]))
                for i in (better, worse)
            ]
            pairs.append(TokenTree.from_paths(f"{number}/{depth}/{better}-{worse}", paths))
        context += steps[0]
    return pairs


def build(plan, settings, shared, model, tokenizer, adapter, trees, probe):
    """Return our trainer on these pairs in the layout of the side, and its collator."""
    from trillium.objectives.configs import DPOConfig
    from trillium.policies.adapters import add_adapter
    from trillium.policies.config import LoraSettings
    from trillium.scoring.reference import BaseReference
    from trillium.training.steps import Sample, StepCollator
    from trillium.training.task import Task
    from trillium.training.trainer import PrefTrainer

    lora = LoraSettings(r=shared.LORA["r"], alpha=shared.LORA["lora_alpha"])
    policy = add_adapter(model, lora, base_name="benchmark", seed=0)
    shared.install(policy, adapter)
    collator = StepCollator(
        "padded" if plan.side == "pairs" else "shared",
        tokenizer.pad_token_id or 0,
        plan.micro_tokens,
        joins_families=plan.side == "tree",
    )
    task = Task(
        samples=[Sample(tree) for tree in trees],
        held_out=(),
        objective=DPOConfig(beta=shared.BETA),
        reference=BaseReference(policy),
        collator=collator,
        order="sequential",
        identity="benchmark",
        keep_checkpoints=1,
        starts_at_reference=False,
    )
    per_tree = plan.depth * (3 if plan.pairing == "each" else 2)
    arguments = shared.our_arguments({**settings, "batch": plan.batch * per_tree})
    return PrefTrainer(policy, arguments, task, callbacks=[probe]), collator


def print_table(rows: list[dict[str, object]]) -> None:
    """Print one line per comparison."""
    columns = ("speed_ratio", "cpu_ratio", "speed_ratio_to_siblings")
    print("mix, pairs; ratios of speed, processor time, speed to siblings; sharing; gate")
    for row in rows:
        ratios = "".join(f"{row[name]:>7}x" if row[name] else f"{'':>8}" for name in columns)
        verdict = "passed" if row["gate"]["passed"] else "FAILED"
        sharing = row["path_tokens_per_computed_token"]
        print(f"{row['mix']:<11}{row['pairing']:<10}{ratios}{sharing:>7}x  {verdict}")


if __name__ == "__main__":
    main()
