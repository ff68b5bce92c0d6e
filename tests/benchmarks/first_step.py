"""How long until the first step: a first run, a second one on the same data, and TRL's second.

    python tests/benchmarks/first_step.py [--pairs 32] [--mix prompt] [--dtype float32]

About seven minutes on two idle cores. `trillium train minimal` on pairs of random words, with an
empty cache of the reference's log-probabilities; then again with another learning rate. TRL 1.16
runs twice on the same rows with `precompute_ref_log_probs`: with its default limit of 1,024 tokens,
under which another learning rate makes it compute anew (a filter that it hashes closes over all
arguments), and without a limit, `trl_unlimited`, where it finds what it had. Each run is a process
of its own, timed from its start, imports included, until its trainer begins the first step; there
it ends. Success: our second run needs at most 0.2 times TRL's with its defaults. What it needs is
imports and does not grow with the data; the first runs do.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from dpo_step import MIXES, RESULTS, describe_machine
from memory import write_pairs

REQUIRED = 0.2
LIMITS = {"trl": "1024", "trl_unlimited": "0"}
# Both trainers are transformers': the process ends where its first step would begin.
STOP = """
import os, sys
from transformers.trainer_callback import CallbackHandler
def stop(*_, **__):
    print("first step", flush=True)
    os._exit(0)
CallbackHandler.on_step_begin = stop
"""
OURS = (
    STOP
    + """
from trillium.cli import main
main()
"""
)
TRL = (
    STOP
    + """
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trillium.assets import find_model
from trl import DPOConfig, DPOTrainer
path, output, rate, dtype, limit = sys.argv[1:]
base = find_model("smollm2-135m-instruct")
rows = load_dataset("json", data_files=path, split="train").remove_columns("id")
DPOTrainer(
    model=AutoModelForCausalLM.from_pretrained(base, dtype=dtype),
    args=DPOConfig(
        output_dir=output, use_cpu=True, bf16=False, precompute_ref_log_probs=True,
        gradient_checkpointing=False, max_length=int(limit) or None, learning_rate=float(rate),
        per_device_train_batch_size=8, dataloader_pin_memory=False, report_to=[],
    ),
    train_dataset=rows,
    processing_class=AutoTokenizer.from_pretrained(base),
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
).train()
"""
)


def main() -> None:
    """Run each side twice and compare the second runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--mix", choices=list(MIXES), default="prompt")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--json", type=Path, default=RESULTS / "first_step-smollm2.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder / "pairs.jsonl", *MIXES[options.mix], n_pairs=options.pairs)
        environment = isolate(folder)
        seconds: dict[str, float] = {}
        for number, word in ((1, "first"), (2, "second")):
            rate, dtype = f"{number}e-5", options.dtype
            arguments = ["train", "minimal", f"data.path={folder}/pairs.jsonl"]
            arguments += [f"policy.dtype={dtype}", f"train.learning_rate={rate}"]
            sides = {"ours": [OURS, *arguments, f"output={folder}/ours-{number}"]}
            for side, limit in LIMITS.items():
                output = f"{folder}/{side}-{number}"
                sides[side] = [TRL, f"{folder}/pairs.jsonl", output, rate, dtype, limit]
            for side, command in sides.items():
                seconds[f"{side}_{word}"] = wait_for_first_step(command, environment)
                print(f"{side} {word}: {seconds[f'{side}_{word}']:.1f} s", flush=True)
    second = seconds["ours_second"]
    of = {"trl": "trl_second", "trl_unlimited": "trl_unlimited_second", "own_first": "ours_first"}
    ratios = {f"of_{name}": round(second / seconds[run], 3) for name, run in of.items()}
    held = ratios["of_trl"] <= REQUIRED
    report = {
        "machine": describe_machine(),
        "options": {**vars(options), "json": None},
        "seconds": seconds,
        "ratios": ratios,
        "held": held,
    }
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(
        f"second run to its first step: {ratios['of_trl']} times TRL's (at most {REQUIRED}), "
        f"{ratios['of_trl_unlimited']} without a limit of length, {ratios['of_own_first']} times "
        f"its own first run; written to {options.json}"
    )
    sys.exit(0 if held else 1)


def isolate(folder: Path) -> dict[str, str]:
    """Return an environment with the assets that are here, and no cache of anything else."""
    from trillium.assets import find_model

    assets = Path(find_model("smollm2-135m-instruct")).parent
    cache = folder / "cache"
    cache.mkdir()
    for path in assets.iterdir():
        if not path.name.startswith("reference-logps"):
            (cache / path.name).symlink_to(path)
    return {
        **os.environ,
        "TRILLIUM_CACHE": str(cache),
        "HF_HOME": str(folder / "hub"),
        "HF_HUB_OFFLINE": "1",
    }


def wait_for_first_step(command: list[str], environment: dict[str, str]) -> float:
    """Run a program to its first step; returns the seconds since its start."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", *command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if "first step" not in done.stdout:
        sys.exit(f"no step was begun:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return round(time.perf_counter() - began, 2)


if __name__ == "__main__":
    main()
