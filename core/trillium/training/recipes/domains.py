"""COFS-DPO: OFS-DPO on one domain after the other, and a combination that forgets none of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from peft import PeftModel
from pydantic import BaseModel, ConfigDict, Field

from trillium.config import Seed
from trillium.deployment.provenance import warn_unservable
from trillium.errors import DataError
from trillium.files import hash_json
from trillium.objectives.pairwise import dpo
from trillium.policies.adapters import adapter_digest, save_adapter
from trillium.policies.arithmetic import add_combination, restore_adapter
from trillium.runs import Run, Stage, hash_config
from trillium.scoring.layout import choose_layout, evaluating
from trillium.scoring.reference import ReferenceProvider
from trillium.scoring.scores import score
from trillium.training.adapter_loop import through_adapter
from trillium.training.inputs import as_pairs
from trillium.training.recipes.fast_slow import FastSlowConfig, train_fast_slow
from trillium.training.round_rows import hash_trees
from trillium.training.steps import StepCollator
from trillium.trees import TokenTree

COMBINED_ADAPTER = "combined"


class DomainsConfig(BaseModel):
    """Choose how each domain is trained and how the domains are combined."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    domain: FastSlowConfig = Field(default=FastSlowConfig(), description="of every domain")
    n_memory: int = Field(default=16, gt=0, description="pairs kept of each domain")
    coefficients: tuple[float, ...] = Field(
        default=(0.0, 0.25, 0.5, 0.75, 1.0),
        min_length=1,
        description="tried for what there was and for what is new",
    )
    seed: Seed = Field(default=0, description="recorded with the run")


@dataclass(frozen=True)
class DomainStep:
    """Hold what one domain left behind.

    `combined` is the adapter to serve from then on: the sum of `weights` times the fast adapters of
    all domains so far. `memory_loss` is its mean DPO loss over the memories, every domain alike.
    """

    fast: Path
    combined: Path
    weights: tuple[float, ...]
    memory_loss: float


def train_domains(
    config: DomainsConfig,
    domains: Sequence[Sequence[TokenTree]],
    model: PeftModel,
    reference: ReferenceProvider,
    folder: Path,
) -> tuple[DomainStep, ...]:
    """Train COFS-DPO on pairs, domain after domain (arXiv 2406.05534).

    Every domain starts from the adapter that `model` comes with. After domain t two coefficients
    are searched on a grid, one for the combination so far and one for the new fast adapter, by the
    loss on a memory of the first `n_memory` pairs of each domain. Resumable like every run; the
    adapter of `model` is in the end what it was.
    Reading: the paper searches all coefficients together; one step per domain costs less and needs
    no earlier domain's data but its memory.
    Raises DataError when there is no domain.
    """
    if not domains:
        raise DataError("cofs_dpo: no domain was given (needs one or more); pass their pairs")
    with Run.open(folder, config, seed=config.seed) as run:
        start = run.stage("start", {"adapter": adapter_digest(model), "base": reference.identity})
        if start.is_due:
            save_adapter(model, start.work / "start")
            start.finish(["start"])
        stream = _Stream(config, domains, model, reference, run, start)
        return tuple(stream.learn(number) for number in range(len(domains)))


class _Stream:
    """The domains of one run, oldest first."""

    def __init__(
        self,
        config: DomainsConfig,
        domains: Sequence[Sequence[TokenTree]],
        model: PeftModel,
        reference: ReferenceProvider,
        run: Run,
        start: Stage,
    ) -> None:
        self._config, self._domains, self._model = config, domains, model
        self._reference, self._run, self._start = reference, run, start
        layout = choose_layout(model, "auto").layout
        self._collator = StepCollator(layout, pad_id=0, micro_tokens=config.domain.micro_tokens)
        self._fast: list[Path] = []
        self._hashes: list[str] = []
        self._weights: tuple[float, ...] = ()

    def learn(self, number: int) -> DomainStep:
        """Train on one domain, and combine what it gave with all that came before."""
        fast = f"domain_{number}/fast"
        train = self._train(number, fast)
        self._fast.append(train.path(fast))
        self._hashes.append(train.record.outputs[fast])
        combine = self._combine(number)
        counts = combine.record.counts
        self._weights = tuple(float(counts[f"weight_{each}"]) for each in range(number + 1))
        return DomainStep(
            fast=self._fast[-1],
            combined=combine.path(f"domain_{number}/combined"),
            weights=self._weights,
            memory_loss=float(counts["memory_loss"]),
        )

    def _train(self, number: int, output: str) -> Stage:
        trees, config = self._domains[number], self._config.domain
        inputs = {"start": self._start.hash, "trees": hash_trees(trees)}
        inputs |= {"config": hash_config(config), "reference": self._reference.identity}
        stage = self._run.stage(f"train_{number}", inputs)
        if stage.is_due:
            restore_adapter(self._model, self._start.path("start"))
            folder = stage.work / f"domain_{number}"
            result = train_fast_slow(config, trees, self._model, self._reference, folder)
            restore_adapter(self._model, self._start.path("start"))
            metrics = f"domain_{number}/metrics.jsonl"
            stage.finish([output, metrics], {"steps": len(result.metrics)})
        return stage

    def _combine(self, number: int) -> Stage:
        memories = [domain[: self._config.n_memory] for domain in self._domains[: number + 1]]
        inputs = {
            "fast": hash_json(self._hashes),
            "before": hash_json(list(self._weights)),
            "memory": hash_json([hash_trees(memory) for memory in memories]),
            "grid": hash_json(list(self._config.coefficients)),
            "beta": str(self._config.domain.objective.beta),
            "reference": self._reference.identity,
        }
        stage = self._run.stage(f"combine_{number}", inputs)
        if stage.is_due:
            tried = {weights: self._memory_loss(weights, memories) for weights in self._grid()}
            # Of equal losses the first: the smallest coefficients.
            best = min(tried, key=lambda weights: tried[weights])
            self._put(best)
            output = f"domain_{number}/combined"
            save_adapter(self._model, stage.work / output, name=COMBINED_ADAPTER)
            warn_unservable(stage.work / output)
            counts = {f"weight_{index}": weight for index, weight in enumerate(best)}
            stage.finish([output], {**counts, "memory_loss": tried[best]})
        return stage

    def _grid(self) -> list[tuple[float, ...]]:
        """Return all weights to try; the first domain stands alone, at its full weight."""
        if not self._weights:
            return [(1.0,)]
        grid = product(sorted(self._config.coefficients), repeat=2)
        return [(*(old * each for each in self._weights), new) for old, new in grid]

    def _put(self, weights: tuple[float, ...]) -> None:
        parts = list(zip(self._fast, weights, strict=True))
        add_combination(self._model, parts, name=COMBINED_ADAPTER)

    @torch.no_grad()
    def _memory_loss(
        self, weights: tuple[float, ...], memories: Sequence[Sequence[TokenTree]]
    ) -> float:
        """Return the mean DPO loss of a combination over the memories."""
        self._put(weights)
        config, model = self._config.domain, self._model
        means = []
        with evaluating(model):
            for memory in memories:
                total = 0.0
                for rows in self._collator.batch_rows(memory):
                    rows = rows.to(model.device)
                    with through_adapter(model, COMBINED_ADAPTER):
                        policy = as_pairs(rows, score(model, rows).logps, None)
                    reference = as_pairs(rows, self._reference.logps(rows), None)
                    total += dpo(policy, reference, beta=config.objective.beta).sum().item()
                means.append(total / len(memory))
        return sum(means) / len(means)
