"""The samples of one online iteration: drawn from the policy as it is, judged, kept on disk.

Samples lie under the name of the policy that drew them. Every batch, and every judged prompt, goes
to disk at once, so an iteration that was killed continues where it was and ends in the same bytes.
"""

from collections.abc import Sequence
from pathlib import Path

from peft import PeftModel

from trillium.files import RowsFile, hash_json, remove
from trillium.generation.interface import (
    Completion,
    Generator,
    PromptBatch,
    SamplingConfig,
    assemble,
)
from trillium.policies.adapters import adapter_digest, using_adapter
from trillium.training.online import Draw, OnlineConfig
from trillium.training.recipes.recipe import Judge
from trillium.training.round_rows import Candidates, Prompt, hash_prompts
from trillium.training.round_sampling import draw_batches, read_scores, score_prompts
from trillium.training.rounds import derive_seed
from trillium.training.sampler import plan_epoch


class Rollout:
    """Draws and judges the completions of an iteration, and keeps them under `rollouts/`."""

    def __init__(
        self,
        config: OnlineConfig,
        draws: Sequence[Draw],
        prompts: Sequence[Prompt],
        model: PeftModel,
        generator: Generator,
        judge: Judge | None,
        output: Path,
        identity: str,
    ) -> None:
        """Write below `output`; `identity` names the run that the samples belong to."""
        self._config, self._draws, self._prompts = config, draws, prompts
        self._model, self._generator, self._judge = model, generator, judge
        self._folder, self._identity = output / "rollouts", identity
        # The policy itself: any other distribution would bias a gradient that samples estimate.
        self._sampling = SamplingConfig(
            temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=config.max_new_tokens
        )

    def draw(self, number: int) -> list[Candidates]:
        """Return what is written for the prompts of iteration `number`, and its scores."""
        prompts = self._choose(number)
        plans = [self._plan(number, prompts, draw) for draw in self._draws]
        folder = self._open(number, prompts, plans)
        samples: list[list[Completion]] = [[] for _ in prompts]
        for draw, plan in zip(self._draws, plans, strict=True):
            path = folder / f"{draw.adapter}.jsonl"
            with RowsFile(path, key="batch") as rows, using_adapter(self._model, draw.adapter):
                batches = draw_batches(rows, plan, self._sampling, self._generator)
            for every, new in zip(samples, assemble(len(prompts), plan, batches), strict=True):
                every.extend(new)
        scores = self._score(folder, prompts, samples)
        return [
            Candidates(prompt, tuple(completions), each)
            for prompt, completions, each in zip(prompts, samples, scores, strict=True)
        ]

    def _choose(self, number: int) -> list[Prompt]:
        """Return the prompts of an iteration: pass after pass, each in an order of its own."""
        size = self._config.prompts_per_iteration
        epoch, place = divmod(number - 1, -(-len(self._prompts) // size))
        plan = plan_epoch(
            [len(prompt.ids) for prompt in self._prompts],
            size,
            order="shuffle",
            seed=derive_seed(self._config.seed, "prompts"),
            epoch=epoch,
        )
        return [self._prompts[index] for index in plan[place]]

    def _plan(self, number: int, prompts: Sequence[Prompt], draw: Draw) -> tuple[PromptBatch, ...]:
        return self._generator.plan(
            [prompt.ids for prompt in prompts],
            n_samples=draw.n_samples,
            seed=derive_seed(self._config.seed, "draw", draw.adapter, number),
        )

    def _open(
        self, number: int, prompts: Sequence[Prompt], plans: Sequence[Sequence[PromptBatch]]
    ) -> Path:
        """Return the folder of these samples; what another policy drew in its place is deleted."""
        drawn_by = [self._identity, adapter_digest(self._model), hash_prompts(prompts)]
        batches = [[[list(b.indices), b.n_samples, b.seed] for b in plan] for plan in plans]
        folder = self._folder / f"{number}-{hash_json([drawn_by, batches])[:12]}"
        for other in self._folder.glob(f"{number}-*"):
            if other != folder:
                remove(other)
        return folder

    def _score(
        self, folder: Path, prompts: Sequence[Prompt], samples: Sequence[Sequence[Completion]]
    ) -> list[tuple[float, ...]]:
        if self._judge is None:
            return [(0.0,) * len(completions) for completions in samples]
        path = folder / "scores.jsonl"
        with RowsFile(path, key="prompt") as rows:
            score_prompts(rows, prompts, samples, self._judge)
        return read_scores(path)
