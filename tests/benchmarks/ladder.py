"""Take our DPO step apart: what each of its parts is worth, one added after the other.

    python tests/benchmarks/ladder.py                        three mixes, both precisions
    python tests/benchmarks/ladder.py --mixes prompt --dtypes float32
    python tests/benchmarks/ladder.py --model tiny           a smoke test of the script itself

    everything  a row per response, every position meets the vocabulary, reference on the fly
    scored      only positions that are scored meet the vocabulary
    one_pass    the head's backward pass is one product
    cached      the reference's log-probabilities are there already
    shared      the prompt of a pair is computed once
    packed      pairs share rows

One process, one policy, the same pairs for every rung; a step is forward and backward pass without
the optimizer. Rungs run up and down again (A-B-...-B-A). A rung counts only when its loss and its
gradient agree with those of the first.
"""

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cosine_similarity, log_softmax, logsigmoid

sys.path.insert(0, str(Path(__file__).parent))

import dpo_step_worker as worker
from dpo_step import GATES, MIXES, RESULTS, describe_machine
from trillium.layouts import collate
from trillium.policies.adapters import add_adapter
from trillium.policies.config import LoraSettings
from trillium.scoring.forward import open_model
from trillium.scoring.reference import BaseReference
from trillium.scoring.scores import score, sum_paths
from trillium.tree_batch import TreeBatch
from trillium.trees import TokenTree

RUNGS = ("everything", "scored", "one_pass", "cached", "shared", "packed")


@dataclass(frozen=True)
class Pairs:
    """Hold one batch: its trees, and the reference's log-probabilities computed before."""

    trees: list[TokenTree]
    reference: torch.Tensor
    row_tokens: int


def main() -> None:
    """Measure every rung of every mix, print ratios to the first, write the raw result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["smollm2", "tiny"], default="smollm2")
    parser.add_argument("--mixes", nargs="+", choices=list(MIXES), default=list(MIXES))
    parser.add_argument("--dtypes", nargs="+", choices=list(GATES), default=list(GATES))
    parser.add_argument("--batch", type=int, default=4, help="pairs per step")
    parser.add_argument("--repeats", type=int, default=2, help="times up and down the ladder")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for dtype in options.dtypes:
        policy, tokenizer = load(options.model, dtype)
        for mix in options.mixes:
            rows.append({"mix": mix, "dtype": dtype, **climb(policy, tokenizer, mix, options)})
            print_row(rows[-1])
    path = options.json or RESULTS / f"ladder-{options.model}.json"
    shown = {key: value for key, value in vars(options).items() if key != "json"}
    report = {"machine": describe_machine(), "options": shown, "rows": rows}
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {path}")
    if not all(row["gate"]["passed"] for row in rows):
        sys.exit("the equality gate failed: the ratios above do not count")


def load(name: str, dtype: str) -> tuple[nn.Module, object]:
    """Return a policy with the benchmark's random adapter, and its tokenizer."""
    plan = {"model": name, "dtype": dtype, "device": "cpu", "side": "ours"}
    model, tokenizer = worker.load_model(plan)
    lora = LoraSettings(r=worker.LORA["r"], alpha=worker.LORA["lora_alpha"])
    policy = add_adapter(model, lora, base_name="benchmark", seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter_name, parameter in worker.named_trainable(policy):
        if "lora_B" in parameter_name:
            parameter.data.normal_(std=0.02, generator=generator)
    return policy.train(), tokenizer


def climb(
    policy: nn.Module, tokenizer: object, mix: str, options: argparse.Namespace
) -> dict[str, object]:
    """Time all rungs on one batch; returns medians, ratios to the first rung, and the gate."""
    prompt, completion = MIXES[mix]
    settings = {"seed": 0, "device": "cpu", "batch": options.batch, "warmup": 0, "steps": 1}
    rows = worker.make_rows(
        {**settings, "prompt_tokens": prompt, "completion_tokens": completion}, tokenizer
    )
    trees = [worker.make_tree(index, row) for index, row in enumerate(rows)]
    row_tokens = 2 * max(tree.n_tokens for tree in trees)
    batch = collate(trees, layout="padded", pad_id=0)
    pairs = Pairs(trees, BaseReference(policy).logps(batch), row_tokens)
    found: dict[str, list[tuple[float, float, torch.Tensor]]] = {rung: [] for rung in RUNGS}
    step(policy, pairs, RUNGS[-1])
    for number in range(2 * options.repeats):
        for rung in RUNGS if number % 2 == 0 else reversed(RUNGS):
            found[rung].append(step(policy, pairs, rung))
    seconds = {rung: statistics.median(each[0] for each in found[rung]) for rung in RUNGS}
    dtype = str(next(p for p in policy.parameters() if not p.requires_grad).dtype)
    return {
        "seconds": {rung: round(value, 3) for rung, value in seconds.items()},
        "ratios": {rung: round(seconds["everything"] / seconds[rung], 2) for rung in RUNGS},
        "gate": gate({rung: each[0] for rung, each in found.items()}, dtype.removeprefix("torch.")),
        "load": os.getloadavg()[0],
    }


def step(policy: nn.Module, pairs: Pairs, rung: str) -> tuple[float, float, torch.Tensor]:
    """Return seconds, loss and gradient of one step."""
    policy.zero_grad(set_to_none=True)
    began = time.perf_counter()
    level = RUNGS.index(rung)
    layout = {"shared": "shared", "packed": "packed"}.get(rung, "padded")
    limit = pairs.row_tokens if layout == "packed" else None
    batch = collate(pairs.trees, layout=layout, pad_id=0, row_tokens=limit)
    if level < RUNGS.index("one_pass"):
        read = read_all if rung == "everything" else read_scored
        chosen = read(policy, batch)
        with torch.no_grad(), policy.disable_adapter():
            reference = read(policy, batch)
    else:
        chosen = score(policy, batch).logps
        is_cached = level >= RUNGS.index("cached")
        reference = pairs.reference if is_cached else BaseReference(policy).logps(batch)
    margins = (chosen - reference).view(-1, 2)
    loss = -logsigmoid(worker.BETA * (margins[:, 0] - margins[:, 1])).mean()
    loss.backward()
    seconds = time.perf_counter() - began
    gradient = torch.cat([p.grad.flatten().float() for _, p in worker.named_trainable(policy)])
    return seconds, loss.item(), gradient


def read_all(policy: nn.Module, batch: TreeBatch) -> torch.Tensor:
    """Score paths as a causal language model does by itself: logits of every position."""
    logits = policy(input_ids=batch.input_ids, use_cache=False).logits.float()
    return at_targets(log_softmax(logits.flatten(0, 1), -1)[batch.predictor], batch)


def read_scored(policy: nn.Module, batch: TreeBatch) -> torch.Tensor:
    """Score paths by logits of the positions that predict a scored token."""
    parts = open_model(policy)
    hidden = parts.decoder(input_ids=batch.input_ids, use_cache=False)[0].flatten(0, 1)
    logits = parts.head.logits(hidden.index_select(0, batch.predictor)).float()
    return at_targets(log_softmax(logits, -1), batch)


def at_targets(logps: torch.Tensor, batch: TreeBatch) -> torch.Tensor:
    """Gather each slot's target and add up the slots of each path."""
    return sum_paths(logps.gather(1, batch.target[:, None])[:, 0], batch)


def gate(found: dict[str, tuple[float, float, torch.Tensor]], dtype: str) -> dict[str, object]:
    """Compare every rung with the first: loss, and the gradient's direction."""
    start, _, cosine_gap = GATES[dtype]
    _, loss, gradient = found["everything"]
    losses = max(abs(each[1] - loss) for each in found.values())
    cosine = min(
        cosine_similarity(gradient.double(), each[2].double(), dim=0).item()
        for each in found.values()
    )
    return {"loss": losses, "cosine": cosine, "passed": losses <= start and 1 - cosine < cosine_gap}


def print_row(row: dict[str, object]) -> None:
    """Print one mix: how many times as fast as the first rung each one is."""
    ratios = "  ".join(f"{rung} {ratio:.2f}" for rung, ratio in row["ratios"].items())
    verdict = "passed" if row["gate"]["passed"] else f"FAILED {row['gate']}"
    print(f"{row['mix']:<11}{row['dtype']:<9} {ratios}  gate {verdict}", flush=True)


if __name__ == "__main__":
    main()
