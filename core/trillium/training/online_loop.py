"""`train_online`: methods that learn from their own samples, resumable at any moment.

    iteration    draw completions, judge them, build trees, observe them, update by minibatches

The method says what is drawn, built, observed and minimised; this loop owns order, samples on disk,
optimizer, checkpoints and journal. A checkpoint falls between two iterations, and samples are kept
under the name of the policy that drew them, so a kill loses one batch of them at most. Dropout is
off: a fresh sample has the same log-probability when it is drawn and when it is learned from.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn

from trillium.deployment.provenance import warn_unservable
from trillium.errors import BackendError
from trillium.files import hash_json
from trillium.generation.interface import Generator
from trillium.policies.adapters import adapter_digest, save_adapter
from trillium.progress import Progress
from trillium.scoring.fingerprint import fingerprint_base
from trillium.scoring.layout import choose_layout
from trillium.training.checkpoints import (
    guard_disk,
    newest_checkpoint,
    prune_checkpoints,
    seal_checkpoint,
    step_of,
)
from trillium.training.journal import Journal, read_metrics
from trillium.training.online import OnlineConfig, OnlineMethod, OnlineResult
from trillium.training.online_rollout import Rollout
from trillium.training.recipes.recipe import Judge
from trillium.training.round_rows import Candidates, Prompt, check_prompts, hash_prompts
from trillium.training.rounds import derive_seed
from trillium.training.sampler import plan_epoch
from trillium.training.steps import StepCollator
from trillium.tree_batch import TreeBatch
from trillium.trees import TokenTree


def train_online(
    config: OnlineConfig,
    method: OnlineMethod,
    prompts: Sequence[Prompt],
    model: PeftModel,
    generator: Generator,
    output: Path,
    *,
    judge: Judge | None = None,
    title: str,
) -> OnlineResult:
    """Train the policy's adapter in place on what it writes, and save it to `output/adapter`.

    `generator` must sample from `model` itself. Killed at any moment and called again with the
    same start it ends in the same bytes (CPU, one process); with more iterations it goes on.
    Raises DataError when there is no prompt or two share an id, BackendError for a gradient that is
    not finite and for a full disk.
    """
    check_prompts(title, prompts)
    output.mkdir(parents=True, exist_ok=True)
    identity = _identify(config, method, prompts, model, judge)
    update = _Update(config, method, model)
    rollout = Rollout(config, method.draws, prompts, model, generator, judge, output, identity)
    journal = Journal(output)
    last = min(journal.last_complete_step(), config.n_iterations)
    first = update.resume(newest_checkpoint(output, identity, last_recorded=last))
    journal.rewind(first)
    model.eval()
    with Progress(title, n_total=config.n_iterations, n_done=first, unit="iterations") as progress:
        for number in range(first + 1, config.n_iterations + 1):
            started = time.perf_counter()
            candidates = rollout.draw(number)
            drawn = time.perf_counter()
            metrics = _measure(candidates, method.draws[0].n_samples) | update.learn(
                number, candidates
            )
            timing = {"seconds": time.perf_counter() - started, "drawing": drawn - started}
            journal.append(number, metrics, timing)
            if number % config.save_steps == 0 or number == config.n_iterations:
                update.save(output / f"checkpoint-{number}", identity)
            progress.advance()
    adapter = output / "adapter"
    with guard_disk(adapter):
        save_adapter(model, adapter)
        warn_unservable(adapter)
    return OnlineResult(adapter, tuple(read_metrics(output)))


class _Update:
    """Moves the learners by what was drawn, and carries optimizer and method over a kill."""

    def __init__(self, config: OnlineConfig, method: OnlineMethod, model: PeftModel) -> None:
        self._config, self._method, self._device = config, method, model.device
        layout = choose_layout(model, "auto").layout
        self._collator = StepCollator(layout, pad_id=0, micro_tokens=config.micro_tokens)
        self._learners = method.learners()
        for learner in self._learners:
            for parameter in learner.entries.values():
                parameter.requires_grad_(True)
        self._optimizer = torch.optim.AdamW(
            [
                {"params": list(learner.entries.values()), "lr": learner.learning_rate}
                for learner in self._learners
            ],
            weight_decay=0.0,
        )
        # A call that was cut short leaves its gradients on the model.
        self._optimizer.zero_grad()

    def learn(self, number: int, candidates: Sequence[Candidates]) -> dict[str, float]:
        """Take the optimizer steps of one iteration; returns the means of what they record."""
        fresh = [tree for each in candidates for tree in self._method.build(each)]
        if not fresh:
            return {"updates": 0}
        trees = self._method.observe(fresh, self._batch_rows)
        records = [self._step(number, batch) for batch in self._minibatches(number, trees)]
        means = {name: sum(row[name] for row in records) / len(records) for name in records[0]}
        return {**means, "updates": len(records)}

    def save(self, folder: Path, identity: str) -> None:
        """Write a checkpoint."""
        with guard_disk(folder):
            folder.mkdir(exist_ok=True)
            for learner in self._learners:
                save_file(
                    {key: entry.detach().contiguous() for key, entry in learner.entries.items()},
                    folder / f"{learner.name}.safetensors",
                )
            torch.save(self._optimizer.state_dict(), folder / "optimizer.pt")
            self._method.save(folder)
            seal_checkpoint(folder, identity)
        prune_checkpoints(folder.parent, keep=2)

    def resume(self, folder: Path | None) -> int:
        """Go back to a checkpoint; returns how many iterations are done."""
        if folder is None:
            return 0
        with torch.no_grad():
            for learner in self._learners:
                saved = load_file(folder / f"{learner.name}.safetensors")
                for key, entry in learner.entries.items():
                    entry.copy_(saved[key])
        self._optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
        self._method.load(folder)
        return step_of(folder)

    def _batch_rows(self, trees: Sequence[TokenTree]) -> Iterator[TreeBatch]:
        return (rows.to(self._device) for rows in self._collator.batch_rows(trees))

    def _minibatches(self, number: int, trees: Sequence[TokenTree]) -> Iterator[list[TokenTree]]:
        lengths, seed = [tree.n_tokens for tree in trees], self._config.seed
        for epoch in range(self._config.num_train_epochs):
            for indices in plan_epoch(
                lengths,
                self._config.trees_per_step,
                order="shuffle",
                seed=derive_seed(seed, "update", number),
                epoch=epoch,
            ):
                yield [trees[index] for index in indices]

    def _step(self, number: int, trees: Sequence[TokenTree]) -> Mapping[str, float]:
        metrics = self._method.accumulate(trees, self._batch_rows)
        for learner in self._learners:
            norm = nn.utils.clip_grad_norm_(learner.entries.values(), self._config.max_grad_norm)
            if not torch.isfinite(norm):
                raise BackendError(
                    f"iteration {number}: the gradient norm of {learner.name} is {norm.item()} "
                    "(expected a finite number); lower the learning rate; the last checkpoint is "
                    "intact"
                )
        self._optimizer.step()
        self._optimizer.zero_grad()
        return metrics


def _measure(candidates: Sequence[Candidates], n_samples: int) -> dict[str, float]:
    """Return the means of the policy's own completions, which come first."""
    scores = [score for each in candidates for score in each.scores[:n_samples]]
    lengths = [len(c.ids) for each in candidates for c in each.completions[:n_samples]]
    return {"score": sum(scores) / len(scores), "tokens": sum(lengths) / len(lengths)}


def _identify(
    config: OnlineConfig,
    method: OnlineMethod,
    prompts: Sequence[Prompt],
    model: PeftModel,
    judge: Judge | None,
) -> str:
    # How long it goes on and how often it is saved change no iteration that is done.
    settings = config.model_dump(mode="json", exclude={"n_iterations", "save_steps"})
    return hash_json(
        {
            "base": fingerprint_base(model),
            "start": adapter_digest(model),
            "method": method.identity,
            "prompts": hash_prompts(prompts),
            "judge": None if judge is None else judge.identity,
            "config": settings,
        }
    )
