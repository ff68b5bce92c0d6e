"""A tiny policy that has learned a handful of programs by heart, right and wrong ones alike.

Random weights write no program, so a journey through sampling, ranking and training would have
nothing to rank. A few seconds of plain next-token training give each task several answers.
"""

import json
from pathlib import Path

import torch

from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium_code.prompts import PromptConfig, assert_prompts, program_prompts
from trillium_code.task_files import read_tasks
from trillium_code.tasks import CodeTask

PROMPT = PromptConfig(program_style="completion", test_style="completion", test_shots=0)
_RULES = {
    "inc": ("n + 1", "n", (1, 5, 8), "train"),
    "dec": ("n - 1", "n", (1, 5, 8), "train"),
    "neg": ("-n", "n", (1, 5, 8), "train"),
    "dbl": ("n * 2", "n", (1, 5, 8), "held_out"),
    "sqr": ("n * n", "n", (2, 5, 8), "held_out"),
}


def write_tasks(path: Path) -> list[CodeTask]:
    """Write five tasks, three to train on and two held out, and return them."""
    rows = []
    for name, (right, wrong, inputs, split) in _RULES.items():
        signature = f"def {name}(n):"
        rows.append(
            {
                "id": f"t/{name}",
                "entry_point": name,
                "signature": signature,
                "statement": f"{name}?",
                "tests": [f"assert {name}({n}) == {eval(right, {'n': n})}" for n in inputs],
                "band": "easy",
                "split": split,
                "solution": f"{signature}\n    return {right}\n",
                "wrong": [f"{signature}\n    return {wrong}\n"],
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_tasks(str(path))


def teach(tasks: list[CodeTask], folder: Path) -> None:
    """Train on the reference, the wrong solution and the tests of each task; save to `folder`."""
    tokenizer, model = tiny_tokenizer(), tiny_policy(seed=1)
    texts: list[tuple[tuple[int, ...], str]] = []
    prompts = zip(
        tasks,
        program_prompts(tasks, tokenizer, PROMPT),
        assert_prompts(tasks, tokenizer, PROMPT),
        strict=True,
    )
    for task, program, test in prompts:
        for solution in (task.solution, *task.wrong):
            assert solution is not None
            texts.append((program, "\n" + solution.split("\n", 1)[1].rstrip("\n")))
        opening = f"assert {task.entry_point}("
        texts += [(test, line.removeprefix(opening)) for line in task.tests]
    rows = [
        (
            [*prompt, *tokenizer(text, add_special_tokens=False)["input_ids"], 2],
            len(prompt),
        )
        for prompt, text in texts
    ]
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [3] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor([[-100] * n + ids[n:] + [-100] * (width - len(ids)) for ids, n in rows])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _fit(model, ids, labels)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _fit(model: torch.nn.Module, ids: torch.Tensor, labels: torch.Tensor) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(250):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
