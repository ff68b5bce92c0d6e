"""A tiny policy that knows a right and a wrong way to work on each of five problems.

Random weights solve nothing, so there would be nothing to learn from: a few seconds of next-token
training give it both ways.
"""

from dataclasses import replace

import torch
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium_math.agent.config import AgentConfig, ToolConfig
from trillium_math.agent.dialogue import Dialogue
from trillium_math.agent.tool import PythonTool
from trillium_math.demonstrations import demonstrate
from trillium_math.grading import Grader
from trillium_math.problems import Problem
from trillium_math.problems.problem_files import write_problems

CONFIG = """
output: {folder}/run
policy: {{base: {folder}/model, dtype: float32, lora: {{r: 4, alpha: 8}}}}
problems:
  train: {{source: {folder}/train.jsonl}}
  held_out: {{source: {folder}/held_out.jsonl}}
agent:
  instruction: "{{question}}"
  max_turns: 3
  max_tokens: 500
  tool: {{min_level: 1, wall_s: 2.0}}
warm_up:
  problems: {{source: {folder}/train.jsonl}}
  learning_rate: 1.0e-4
  per_device_train_batch_size: 2
  save_steps: 1
n_rounds: 2
n_from_previous: 2
sampling: {{n_samples: 8, temperature: 1.0, top_p: 1.0, max_new_tokens: 90}}
max_rows: 8
method:
  name: m_dpo
  select: {{n_pairs: 4, loser_outcomes: [answered, no_answer, turn_too_long, turn_limit]}}
  train:
    learning_rate: 3.0e-3
    num_train_epochs: 4
    per_device_train_batch_size: 2
    save_steps: 2
evaluate:
  sampling: {{n_samples: 4, temperature: 1.0, top_p: 1.0, max_new_tokens: 90}}
  k: [1, 4]
"""
PROBLEMS = [
    Problem(f"t/{name}", f"{name}?", str(right), family="tiny", solution=f"print({right})")
    for name, right in (("a", 12), ("b", 34), ("c", 56), ("d", 78), ("e", 90))
]


def furnish(folder):
    """Write problems, the taught model and a run file to `folder`, and return it."""
    write_problems(folder / "train.jsonl", PROBLEMS[:4])
    write_problems(folder / "held_out.jsonl", PROBLEMS[4:])
    teach(folder / "model")
    (folder / "run.yaml").write_text(CONFIG.format(folder=folder))
    return folder


def teach(folder):
    """Train on a right and a wrong trajectory of each problem; save to `folder`."""
    tokenizer, model = tiny_tokenizer(), tiny_policy(seed=1)
    config = AgentConfig(instruction="{question}", tool=ToolConfig(min_level=1))
    wrong = [replace(one, answer="7", solution="print(7)") for one in PROBLEMS]
    with config.tool.open() as backend, Grader() as grader:
        made = demonstrate(
            [*PROBLEMS, *wrong],
            Dialogue(tokenizer, config),
            PythonTool(backend, config.tool),
            grader,
            max_tokens=500,
        )
    paths = [trajectory.path for trajectory in made.trajectories]
    width = max(len(path.ids) for path in paths)
    ids = torch.tensor([[*path.ids, *[3] * (width - len(path.ids))] for path in paths])
    scored = torch.tensor([[*path.scored, *[False] * (width - len(path.ids))] for path in paths])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _fit(model, ids, ids.masked_fill(~scored, -100))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _fit(model, ids, labels):
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(300):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
