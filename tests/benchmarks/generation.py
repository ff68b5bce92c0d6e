"""Tokens per second of samples: transformers' `generate`, and ours, in one run.

    python tests/benchmarks/generation.py --quick         8 prompts: 8 minutes of processor time
    python tests/benchmarks/generation.py                 64 prompts: two hours of it, estimated
    python tests/benchmarks/generation.py --model tiny    a smoke test of the script itself
    python tests/benchmarks/generation.py --device cuda   the same on a GPU

SmolLM2-135M-Instruct says in one sentence what a function does; answers end by themselves, so their
lengths vary. Both sides get the same prompts, longest first, and the same sampling settings; the
greedy answers are compared before any time counts. `generate` runs at the best of several batch
sizes, chosen in a trial on a part of the prompts (--quick: at the largest). `ours_unfilled` plans
batches no larger than the pool, so that nothing takes the place of finished rows (left out by
`--no-unfilled`). Sides take turns, forwards and backwards. Processor time is what is compared on a
processor, so that a busy machine hurts all sides alike.
Success: the ratio of tokens per second is at least 1.5 and the gate says "passed".
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging
from trillium.assets import find_model
from trillium.environment import describe_environment
from trillium.generation.in_process import TransformersGenerator
from trillium.generation.interface import SamplingConfig
from trillium.policies.load import load_base, load_tokenizer, resolve_dtype
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium_code.task_files import read_tasks

RESULTS = Path(__file__).resolve().with_name("results")
REQUIRED = 1.5
QUESTION = "Say in one short sentence what this function does.\n\n"
Lengths = list[int]


@dataclass(frozen=True)
class Bench:
    """What all sides sample from, and how."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompts: list[list[int]]
    sampling: SamplingConfig


def main() -> None:
    """Run the plan that the command line asks for and print ratios."""
    options = parse_options()
    transformers_logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    bench = open_bench(options)
    gate = compare_greedy(bench, options.gate_prompts)
    trial = try_batch_sizes(bench, options)
    best = max(trial, key=lambda size: trial[size] or 0.0)
    sides: dict[str, Callable[[int], Lengths]] = {
        "generate": lambda seed: by_generate(bench, best, seed),
        "ours": lambda seed: by_pool(bench, options.rows, len(bench.prompts), seed),
    }
    if options.unfilled and not options.quick:
        unfilled = max(1, options.rows // options.samples)
        sides["ours_unfilled"] = lambda seed: by_pool(bench, options.rows, unfilled, seed)
    runs = []
    for seed, side in enumerate([*sides, *reversed(sides)]):
        load = os.getloadavg()[0]
        run = {"side": side, "load_before": load, **measure(bench, sides[side], seed)}
        print(f"{side:<14}{run['tokens']:>8} tokens {run['seconds']:>8} s", flush=True)
        runs.append(run)
    report = {
        "machine": describe_environment(),
        "load_average": os.getloadavg(),
        "options": {**vars(options), "json": None},
        "prompt_tokens": [len(prompt) for prompt in bench.prompts],
        "gate": gate,
        "generate_trial": trial,
        "generate_prompts_per_batch": best,
        "runs": runs,
        "ratios": ratios(runs, options.device),
    }
    report["held"] = gate["passed"] and report["ratios"]["ours"]["tokens_per_s"] >= REQUIRED
    name = "-".join(["generation", options.model, *(["quick"] if options.quick else [])])
    path = options.json or RESULTS / f"{name}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    for side, found in report["ratios"].items():
        print(f"{side}: {found['tokens_per_s']} times generate ({found['wall']} by the clock)")
    print(f"gate {'passed' if gate['passed'] else 'FAILED'}; written to {path}")
    if not gate["passed"]:
        sys.exit("the greedy answers differ: the ratios above do not count")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="8 prompts, 48 new tokens")
    parser.add_argument("--model", choices=["smollm2", "tiny"], default="smollm2")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--rows", type=int, default=128, help="our rows under way")
    parser.add_argument("--peer-prompts", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--unfilled", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.gate_prompts, options.trial_prompts = 8, 16
    if options.quick:
        options.prompts, options.max_new_tokens = 8, 48
        options.peer_prompts, options.gate_prompts, options.rows = [8], 2, 64
    return options


def open_bench(options: argparse.Namespace) -> Bench:
    """Load the model and write the prompts, longest first."""
    if options.model == "tiny":
        model, tokenizer = tiny_policy().to(options.device), tiny_tokenizer()
        model.generation_config.eos_token_id = [2, *range(100, 113)]
    else:
        source, device = find_model("smollm2-135m-instruct"), torch.device(options.device)
        model = load_base(source, resolve_dtype(options.dtype, device), "none", device)
        tokenizer = load_tokenizer(source)
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": QUESTION + task.solution}],
            add_generation_prompt=True,
            return_dict=False,
        )
        for task in read_tasks("own")[: options.prompts]
    ]
    sampling = SamplingConfig(
        n_samples=options.samples,
        temperature=0.8,
        top_p=0.95,
        max_new_tokens=options.max_new_tokens,
    )
    return Bench(model, tokenizer, sorted(prompts, key=len, reverse=True), sampling)


def by_pool(bench: Bench, n_rows: int, prompts_per_batch: int, seed: int) -> Lengths:
    """Sample with ours; returns the tokens of each completion."""
    sampling = bench.sampling
    n_samples = sampling.n_samples
    generator = TransformersGenerator(
        bench.model, bench.tokenizer, max_rows=n_rows, batch_rows=prompts_per_batch * n_samples
    )
    batches = generator.plan(bench.prompts, n_samples=n_samples, seed=seed)
    drawn = [generator.generate_batch(batch, sampling) for batch in batches]
    return [len(one.ids) for groups in drawn for group in groups for one in group]


def by_generate(bench: Bench, prompts_per_batch: int, seed: int) -> Lengths:
    """Sample with `generate`; the tokens behind the end of an answer are not counted."""
    torch.manual_seed(seed)
    sampling, lengths = bench.sampling, []
    for start in range(0, len(bench.prompts), prompts_per_batch):
        answers = generate(
            bench,
            bench.prompts[start : start + prompts_per_batch],
            do_sample=True,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=0,
            num_return_sequences=sampling.n_samples,
        )
        lengths += [len(answer) for answer in answers]
    return lengths


def generate(
    bench: Bench, prompts: Sequence[list[int]], **settings: float | bool | int | None
) -> list[list[int]]:
    """Return what `generate` answers, up to the token that ends each."""
    n_columns, pad = max(map(len, prompts)), bench.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (n_columns - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (n_columns - len(p)) + [1] * len(p) for p in prompts])
    found = bench.model.generate(
        input_ids=ids.to(bench.model.device),
        attention_mask=mask.to(bench.model.device),
        max_new_tokens=bench.sampling.max_new_tokens,
        pad_token_id=pad,
        **settings,
    )
    ends = bench.model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    answers = []
    for answer in found[:, n_columns:].tolist():
        stop = next((place for place, token in enumerate(answer) if token in ends), len(answer))
        answers.append(answer[: stop + 1])
    return answers


def compare_greedy(bench: Bench, n_prompts: int) -> dict[str, object]:
    """Say whether both sides answer alike when they do not sample; in bfloat16 some may differ."""
    prompts = bench.prompts[:n_prompts]
    theirs = generate(bench, prompts, do_sample=False)
    ours = TransformersGenerator(bench.model, bench.tokenizer).generate(
        prompts,
        SamplingConfig(temperature=0, top_p=1, max_new_tokens=bench.sampling.max_new_tokens),
        seed=0,
    )
    same = [list(one.ids) == answer for (one,), answer in zip(ours, theirs, strict=True)]
    needed = 1.0 if bench.model.dtype == torch.float32 else 0.5
    share = sum(same) / len(same)
    return {"equal_share": share, "needed": needed, "passed": share >= needed}


def try_batch_sizes(bench: Bench, options: argparse.Namespace) -> dict[int, float | None]:
    """Return tokens per second of `generate` by the prompts it is given at a time.

    A single size needs no trial.
    """
    part = Bench(
        bench.model, bench.tokenizer, bench.prompts[: options.trial_prompts], bench.sampling
    )
    rates = {}
    sizes = sorted({min(size, len(part.prompts)) for size in options.peer_prompts})
    if len(sizes) == 1:
        return {sizes[0]: None}
    for size in sizes:
        found = measure(part, lambda seed, size=size: by_generate(part, size, seed), 0)
        rates[size] = round(rate(found, options.device), 2)
        print(f"generate, {size} prompts at a time: {rates[size]} tokens/s", flush=True)
    return rates


def measure(bench: Bench, sample: Callable[[int], Lengths], seed: int) -> dict[str, object]:
    """Time one side by the clock and by the processor."""
    is_cuda = bench.model.device.type == "cuda"
    if is_cuda:
        torch.cuda.synchronize()
    clock, processor = time.perf_counter(), time.process_time()
    lengths = sample(seed)
    if is_cuda:
        torch.cuda.synchronize()
    return {
        "seconds": round(time.perf_counter() - clock, 2),
        "processor_s": round(time.process_time() - processor, 2),
        "completions": len(lengths),
        "tokens": sum(lengths),
        "median_tokens": statistics.median(lengths),
        "cut_off": sum(length == bench.sampling.max_new_tokens for length in lengths),
    }


def rate(run: dict, device: str) -> float:
    """Return tokens per second: of processor time on a processor, of the clock on a GPU."""
    return run["tokens"] / (run["seconds"] if device == "cuda" else run["processor_s"])


def ratios(runs: list[dict], device: str) -> dict[str, dict[str, float]]:
    """Return how much faster than `generate` each side is, over all its runs."""

    def total(side: str, what: str) -> float:
        return sum(run[what] for run in runs if run["side"] == side)

    def per(side: str, what: str) -> float:
        return total(side, "tokens") / total(side, what)

    counted = "seconds" if device == "cuda" else "processor_s"
    return {
        side: {
            "tokens_per_s": round(per(side, counted) / per("generate", counted), 2),
            "wall": round(per(side, "seconds") / per("generate", "seconds"), 2),
            "tokens_of_each": round(total(side, "tokens") / total("generate", "tokens"), 3),
        }
        for side in dict.fromkeys(run["side"] for run in runs)
        if side != "generate"
    }


if __name__ == "__main__":
    main()
