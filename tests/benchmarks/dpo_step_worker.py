"""One side of the DPO step benchmark, in a process of its own; prints its result as JSON."""

import hashlib
import importlib
import json
import os
import random
import resource
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

LORA = {
    "r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "target_modules": "all-linear",
    "task_type": "CAUSAL_LM",
}
BETA = 0.1
# A learning rate that moves no weight.
STILL = 1e-12
TEXT = """
the of and a to in is it that was he for on are with as his they at be this from have or
by one had not but what all were when we there can an your which their said if do will
each about how up out them then she many some so these would other into has more her two
like him see time could no make than first been its who now people my made over did down
only way find use may water long little very after words called just where most know
number = + - 1 2 3 4 5
"""
WORDS = TEXT.split()


class Probe(TrainerCallback):
    """Record the loss and duration of each step, and the gradient of the first.

    Where the learning rate leaves the weights as they are, the gradients of all steps are added up.
    """

    def __init__(self, warmup, gradient_path, *, adds_up=False):
        """Keep the gradient at `gradient_path`; count processor time after `warmup` steps."""
        self.warmup, self.gradient_path, self.adds_up = warmup, gradient_path, adds_up
        self.losses, self.seconds = [], []
        self.cpu_start = 0.0
        self.gradient = 0.0

    def on_step_begin(self, args, state, control, **_):
        """Start the clock."""
        if state.global_step == self.warmup:
            self.cpu_start = cpu_seconds()
        wait()
        self.started = time.perf_counter()

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        """Keep the gradient, clipped as the optimizer sees it."""
        if state.global_step == 0 or self.adds_up:
            began = time.perf_counter()
            trainable = sorted(named_trainable(model), key=lambda pair: pair[0])
            gradients = [parameter.grad.flatten().float() for _, parameter in trainable]
            self.gradient = self.gradient + torch.cat(gradients)
            torch.save(self.gradient, self.gradient_path)
            self.started += time.perf_counter() - began

    def on_step_end(self, args, state, control, **_):
        """Stop the clock."""
        wait()
        self.seconds.append(time.perf_counter() - self.started)

    def on_log(self, args, state, control, logs=None, **_):
        """Keep the loss."""
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])


def main():
    """Run the plan of the command line; its result is the last line."""
    plan = json.loads(sys.argv[1])
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    print(json.dumps(run_side(plan)))


def run_side(plan):
    """Load, train, measure; returns what was measured."""
    torch.manual_seed(0)
    model, tokenizer = load_model(plan)
    rows = make_rows(plan, tokenizer)
    adapter = load_adapter(plan, model)
    is_ours = plan["side"].startswith("ours")
    build = build_ours if is_ours else build_trl
    gradient_path = new_path(plan, f"{plan['side']}.pt")
    probe = Probe(plan["warmup"], gradient_path, adds_up=plan["learning_rate"] <= STILL)
    read_weights(model)
    importlib.import_module("trillium.training.align" if is_ours else "trl.trainer.dpo_trainer")
    # From here on the peak counts; what loading needed, weights and libraries, does not.
    loaded_mb = begin_memory(plan)
    began = time.perf_counter()
    trainer = build(plan, model, tokenizer, rows, adapter, probe)
    prepare_s = time.perf_counter() - began
    trainer.train()
    timed = probe.seconds[plan["warmup"] :]
    n_pair, n_shared, n_scored = (count / len(probe.seconds) for count in count_tokens(rows))
    return {
        "side": plan["side"],
        "losses": probe.losses,
        "step_s": timed,
        "cpu_s_per_step": (cpu_seconds() - probe.cpu_start) / len(timed),
        "loaded_mb": loaded_mb,
        "peak_mb": peak_memory(plan),
        "prepare_s": prepare_s,
        "gradient": str(gradient_path),
        "ids_sha256": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        "pair_tokens_per_step": n_pair,
        "tokens_per_step": n_shared if is_ours else n_pair,
        "scored_per_step": n_scored,
    }


def load_model(plan):
    """Return the model in the plan's precision, and its tokenizer."""
    if plan["device"] == "cuda":
        from gpu_models import build_model
        from trillium.policies.tiny import tiny_tokenizer

        model = build_model(plan["model"], plan["side"], is_exact=plan["dtype"] == "float32")
        return model, tiny_tokenizer()
    dtype = torch.float32 if plan["dtype"] == "float32" else torch.bfloat16
    if plan["model"] == "tiny":
        from trillium.policies.tiny import tiny_policy, tiny_tokenizer

        model, tokenizer = tiny_policy(dtype=dtype), tiny_tokenizer()
    else:
        from trillium.assets import fetch_asset

        folder = fetch_asset("smollm2-135m-instruct")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    if plan["dtype"] == "widened":
        model.float()
    if plan["side"].startswith("ours"):
        from trillium.policies.fused import fuse_layers

        fuse_layers(model, norms=False)
    return model, tokenizer


def make_rows(plan, tokenizer):
    """Generate pairs of token ids, lengths within 30 % of the plan's medians."""
    rng = random.Random(plan["seed"])

    def write(n_tokens):
        size = round(n_tokens * rng.uniform(0.7, 1.3))
        if plan["device"] == "cuda":
            return [rng.randrange(4, 100_000) for _ in range(size)]
        text = " ".join(rng.choices(WORDS, k=size + 8))
        return tokenizer(text, add_special_tokens=False).input_ids[:size]

    count = plan["batch"] * (plan["warmup"] + plan["steps"])
    rows = []
    for _ in range(count):
        prompt = write(plan["prompt_tokens"])
        chosen, rejected = (
            [*write(plan["completion_tokens"]), tokenizer.eos_token_id] for _ in range(2)
        )
        rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return rows


def count_tokens(rows):
    """Count tokens as a trainer that shares nothing sees them, as one that shares, and scored."""
    prompt, scored = (
        sum(sum(len(row[name]) for name in names) for row in rows)
        for names in (("prompt_ids",), ("chosen_ids", "rejected_ids"))
    )
    return 2 * prompt + scored, prompt + scored, scored


def load_adapter(plan, model):
    """Return one adapter with random B for all sides; the first process makes it."""
    path = Path(plan["workspace"]) / f"adapter-{plan['model']}.safetensors"
    if not path.exists():
        # A throwaway copy of the structure: the model itself must stay free of adapters.
        with torch.device("meta"):
            shapes = get_peft_model(type(model)(model.config), LoraConfig(**LORA))
        generator = torch.Generator().manual_seed(1)
        tensors = {}
        for name, parameter in named_trainable(shapes):
            scale = 0.02 if "lora_B" in name else parameter.shape[1] ** -0.5
            values = torch.randn(parameter.shape, generator=generator) * scale
            tensors[name.replace(".default", "")] = values
        save_file(tensors, path)
    return load_file(path)


def build_trl(plan, model, tokenizer, rows, adapter, probe):
    """Return TRL's trainer on exactly these ids."""
    from trl import DPOConfig, DPOTrainer

    class SameIds(DPOTrainer):
        def _prepare_dataset(self, dataset, *_):
            return dataset

    arguments = DPOConfig(
        output_dir=str(new_path(plan, "trl")),
        beta=BETA,
        bf16=plan["device"] == "cuda" and plan["dtype"] == "bfloat16",
        gradient_checkpointing=plan["side"] == "trl_default",
        precompute_ref_log_probs=plan["side"] == "trl_tuned",
        max_length=None,
        train_sampling_strategy="sequential",
        **shared_arguments(plan),
    )
    trainer = SameIds(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(**LORA),
        callbacks=[probe],
    )
    install(trainer.model, adapter)
    return trainer


def build_ours(plan, model, tokenizer, rows, adapter, probe):
    """Return our trainer on exactly these ids."""
    from trillium.objectives.configs import DPOConfig
    from trillium.policies.adapters import add_adapter
    from trillium.policies.config import LoraSettings
    from trillium.scoring.cache import LogpCache
    from trillium.scoring.layout import choose_layout
    from trillium.scoring.reference import BaseReference, CachedReference
    from trillium.training.align import precompute_reference
    from trillium.training.steps import Sample, StepCollator
    from trillium.training.task import Task
    from trillium.training.trainer import PrefTrainer

    lora = LoraSettings(r=LORA["r"], alpha=LORA["lora_alpha"])
    policy = add_adapter(model, lora, base_name="benchmark", seed=0)
    install(policy, adapter)
    samples = [Sample(make_tree(index, row)) for index, row in enumerate(rows)]
    layout = choose_layout(policy, "auto").layout
    collator = StepCollator(layout, tokenizer.pad_token_id or 0, plan["micro_tokens"])
    reference = BaseReference(policy)
    if plan["side"] == "ours_cached":
        reference = CachedReference(reference, LogpCache(new_path(plan, "cache.sqlite")))
        precompute_reference(reference, samples, collator, torch.device(plan["device"]))
    task = Task(
        samples=samples,
        held_out=(),
        objective=DPOConfig(beta=BETA),
        reference=reference,
        collator=collator,
        order="sequential",
        identity="benchmark",
        keep_checkpoints=1,
        starts_at_reference=False,
    )
    return PrefTrainer(policy, our_arguments(plan), task, callbacks=[probe])


def our_arguments(plan):
    """Return our side of what both trainers are told."""
    from trillium.training.config import TrainConfig, training_arguments

    config = TrainConfig(
        order="sequential",
        per_device_train_batch_size=plan["batch"],
        learning_rate=plan["learning_rate"],
        gradient_checkpointing=True if plan["side"] == "ours_lean" else None,
    )
    output = new_path(plan, "ours")
    output.mkdir()
    arguments = training_arguments(config, output, use_cpu=plan["device"] == "cpu")
    arguments.save_strategy = "no"
    return arguments


def make_tree(index, row):
    """Return a pair of token ids as a tree."""
    from trillium.trees import TokenPath, TokenTree

    n_prompt = len(row["prompt_ids"])
    paths = [
        TokenPath(
            tuple(row["prompt_ids"] + row[side]),
            (False,) * n_prompt + (True,) * len(row[side]),
        )
        for side in ("chosen_ids", "rejected_ids")
    ]
    return TokenTree.from_paths(str(index), paths)


def shared_arguments(plan):
    """Return what both trainers are told in the same words."""
    return {
        "use_cpu": plan["device"] == "cpu",
        "per_device_train_batch_size": plan["batch"],
        "learning_rate": plan["learning_rate"],
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "num_train_epochs": 1,
        "optim": "adamw_torch",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 0,
    }


def install(policy, adapter):
    """Put the common adapter in place, in float32."""
    result = set_peft_model_state_dict(policy, adapter)
    assert not result.unexpected_keys


def new_path(plan, name):
    """Return a path in the workspace that no other side and no other run of it uses."""
    paths = Path(plan["workspace"]) / f"{os.getpid()}-{plan['side']}-{time.monotonic_ns()}"
    paths.mkdir()
    return paths / name


def named_trainable(model):
    """Return name and parameter of everything that is trained."""
    return [(n, parameter) for n, parameter in model.named_parameters() if parameter.requires_grad]


def read_weights(model):
    """Touch every page of the weights: what is mapped from a file is in memory once it was read."""
    for parameter in model.parameters():
        parameter.detach().reshape(-1)[::1024].abs().sum()


def wait():
    """Let the device finish what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def begin_memory(plan):
    """Forget the peak so far; returns what is held now, in MB."""
    if plan["device"] == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    Path("/proc/self/clear_refs").write_text("5")
    return memory_mb("VmRSS")


def peak_memory(plan):
    """Return the most that was held since `begin_memory`, in MB."""
    if plan["device"] == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return memory_mb("VmHWM")


def memory_mb(field):
    """Return a field of /proc/self/status in MB: VmRSS now, VmHWM at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def cpu_seconds():
    """Return the processor time of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
