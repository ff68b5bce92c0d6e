"""What a run would do: tasks and tokens counted, one tree shown in colour, nothing started."""

from collections import Counter
from collections.abc import Iterator

from rich.text import Text
from trillium.generation import SamplingConfig
from trillium.preview import render_tree
from trillium.progress import format_duration
from trillium.trees import TokenPath, TokenTree

from trillium_code.config import CodeConfig
from trillium_code.estimate import plan_work, seconds_left
from trillium_code.models import Models
from trillium_code.preparation import RunTasks, prepare_tasks
from trillium_code.prompts import assert_prompts, program_prompts
from trillium_code.tasks import CodeTask


def preview(config: CodeConfig) -> Iterator[Text]:
    """Yield what `--dry-run` prints; raises what the run itself would raise for bad input."""
    tasks = prepare_tasks(config)
    yield Text(_describe_tasks(tasks))
    models = Models(config.policy, seed=config.seed, max_rows=config.max_rows)
    with config.sandbox.open() as backend:
        yield Text(f"sandbox: {config.sandbox.backend}, isolation level {backend.level}")
    for name, chosen, sampling, render in (
        ("programs", tasks.train, config.programs, program_prompts),
        ("tests", tasks.train, config.tests, assert_prompts),
        ("evaluation, twice", tasks.held_out, config.evaluate.sampling, program_prompts),
    ):
        prompts = models.checked(
            render(chosen, models.tokenizer, config.prompt),
            [task.id for task in chosen],
            max_new_tokens=sampling.max_new_tokens,
        )
        yield Text(_describe_sampling(name, [len(prompt) for prompt in prompts], sampling))
    left = format_duration(seconds_left(plan_work(config, tasks, {}), {}))
    yield Text(f"about {left} on two cores with a model of 135 M parameters; nothing was started")
    yield render_tree(example_tree(tasks.train[0], models, config), models.tokenizer)


def example_tree(task: CodeTask, models: Models, config: CodeConfig) -> TokenTree:
    """Return a tree as training would see it, with solutions of the task file as completions.

    They stand in for what the model will sample and are never trained on.
    """
    (prompt,) = program_prompts([task], models.tokenizer, config.prompt)
    bodies = [program for program in (task.solution, *task.wrong) if program is not None][:2]
    texts = ["\n" + body.removeprefix(task.signature).strip("\n") for body in bodies]
    stop = models.tokenizer.eos_token_id
    paths = []
    for text in texts or ["\n    ..."]:
        ids = models.tokenizer(text, add_special_tokens=False)["input_ids"]
        whole = (*prompt, *ids, stop)
        paths.append(TokenPath(whole, (False,) * len(prompt) + (True,) * (len(ids) + 1)))
    return TokenTree.from_paths(task.id, paths)


def _describe_tasks(tasks: RunTasks) -> str:
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
    return "\n".join(lines)


def _describe_sampling(name: str, lengths: list[int], sampling: SamplingConfig) -> str:
    n_completions = len(lengths) * sampling.n_samples
    return (
        f"{name}: {len(lengths)} prompts of {min(lengths)} to {max(lengths)} tokens, "
        f"{n_completions:,} completions, at most {n_completions * sampling.max_new_tokens:,} tokens"
    )
