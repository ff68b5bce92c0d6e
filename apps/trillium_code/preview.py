"""What a run would do: tasks and tokens counted, one tree shown in colour, nothing started."""

from collections import Counter
from collections.abc import Iterator

import torch
from rich.text import Text
from trillium.generation import SamplingConfig
from trillium.generation.config import ServedPolicyConfig
from trillium.generation.connection import ServerConnection
from trillium.preview import render_tree
from trillium.progress import format_duration
from trillium.trees import TokenPath, TokenTree

from trillium_code.config import CodeConfig
from trillium_code.estimate import machine_rates, plan_work, seconds_left
from trillium_code.models import Models
from trillium_code.opening import open_models, open_sandbox, opened_cluster
from trillium_code.preparation import RunTasks, prepare_tasks
from trillium_code.programs import stub_program
from trillium_code.prompts import assert_prompts, program_prompts
from trillium_code.tasks import CodeTask


def preview(config: CodeConfig) -> Iterator[Text]:
    """Yield what `--dry-run` prints; raises what the run itself would raise for bad input."""
    tasks = prepare_tasks(config)
    yield Text(describe_tasks(tasks))
    models = open_models(config)
    with opened_cluster(config), open_sandbox(config) as backend:
        where = "" if config.ray is None else " on the nodes of the Ray cluster"
        level = f"isolation level {backend.level}{where}"
    yield Text(f"sandbox: {config.sandbox.backend}, {level}")
    yield Text(_describe_generation(config))
    for name, chosen, sampling, render in (
        ("programs", tasks.train, config.programs, program_prompts),
        ("tests", tasks.train, config.tests, assert_prompts),
        ("evaluation, twice", tasks.held_out, config.evaluate.sampling, program_prompts),
    ):
        prompts = render(chosen, models.tokenizer, config.prompt)
        fits = models.fitting(
            prompts, [task.id for task in chosen], max_new_tokens=sampling.max_new_tokens
        )
        lengths = [len(prompt) for prompt, fit in zip(prompts, fits, strict=True) if fit]
        yield Text(_describe_sampling(name, lengths, sampling))
        if len(lengths) < len(prompts):
            yield Text(f"  set aside: {len(prompts) - len(lengths)} tasks, their prompts too long")
    left = format_duration(seconds_left(plan_work(config, tasks, {}), {}, machine_rates()))
    where = "a GPU" if torch.cuda.is_available() else "two cores"
    yield Text(f"about {left} on {where} with a model of 135 M parameters; nothing was started")
    yield render_tree(example_tree(tasks.train[0], models, config), models.tokenizer)


def example_tree(task: CodeTask, models: Models, config: CodeConfig) -> TokenTree:
    """Return a tree as training would see it, with solutions of the task file as completions.

    They stand in for what the model will sample and are never trained on.
    """
    (prompt,) = program_prompts([task], models.tokenizer, config.prompt)
    bodies = [program for program in (task.solution, *task.wrong) if program is not None][:2]
    if config.prompt.program_style == "answer":
        bodies = bodies or [stub_program(task.header)]
        texts = [f"```python\n{program.strip()}\n```" for program in bodies]
    else:
        texts = ["\n" + body.removeprefix(task.signature).strip("\n") for body in bodies]
    stop = models.tokenizer.eos_token_id
    paths = []
    for text in texts or ["\n    ..."]:
        ids = models.tokenizer(text, add_special_tokens=False)["input_ids"]
        whole = (*prompt, *ids, stop)
        paths.append(TokenPath(whole, (False,) * len(prompt) + (True,) * (len(ids) + 1)))
    return TokenTree.from_paths(task.id, paths)


def describe_tasks(tasks: RunTasks) -> str:
    """Return a line for each set of tasks, and for what was left out of them."""
    lines = [
        f"{name}: {len(chosen)} {'task' if len(chosen) == 1 else 'tasks'} ("
        + ", ".join(f"{n} {band}" for band, n in Counter(t.band for t in chosen).items())
        + ")"
        for name, chosen in (("training", tasks.train), ("held out", tasks.held_out))
    ]
    if tasks.removed:
        first, twin = next(iter(tasks.removed.items()))
        lines.append(
            f"left out of training: {len(tasks.removed)}, because they repeat held-out tasks, "
            f"such as {first} ({twin})"
        )
    if tasks.plus:
        lines.append(f"more tests: {len(tasks.plus)} of the held-out tasks")
    if tasks.set_aside:
        lines.append(f"set aside: {len(tasks.set_aside)} rows, such as {tasks.set_aside[0]}")
    return "\n".join(lines)


def _describe_generation(config: CodeConfig) -> str:
    generation, ray = config.generation, config.ray
    if isinstance(generation, ServedPolicyConfig):
        ServerConnection(generation).check()
        own = "" if generation.loads_adapters else "; evaluation samples here, before and after"
        return f"sampling: {generation.model} at {generation.url}{own}"
    if ray is not None and ray.n_samplers:
        return f"sampling: {generation.backend} in {ray.n_samplers} actors of the Ray cluster"
    return f"sampling: {generation.backend} in this process"


def _describe_sampling(name: str, lengths: list[int], sampling: SamplingConfig) -> str:
    n_completions = len(lengths) * sampling.n_samples
    return (
        f"{name}: {len(lengths)} prompts of {min(lengths)} to {max(lengths)} tokens, "
        f"{n_completions:,} completions, at most {n_completions * sampling.max_new_tokens:,} tokens"
    )
