"""RTO: a DPO model rewards every token, and PPO with a value function learns from that."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel
from pydantic import Field

from trillium.generation.interface import Generator
from trillium.objectives.configs import DPOConfig
from trillium.policies.adapters import adapter_digest, save_adapter
from trillium.policies.arithmetic import restore_adapter
from trillium.runs import Run, Stage, hash_config
from trillium.scoring.fingerprint import fingerprint_base
from trillium.scoring.reference import LiveReference
from trillium.training.align import align
from trillium.training.config import AlignConfig, TrainConfig
from trillium.training.journal import read_metrics
from trillium.training.online import take_reference
from trillium.training.online_loop import train_online
from trillium.training.recipes.recipe import Judge
from trillium.training.recipes.token_ppo import (
    ALIGNED_ADAPTER,
    CRITIC_ADAPTER,
    TokenPPO,
    TokenPPOConfig,
)
from trillium.training.round_rows import Prompt, hash_prompts, hash_trees
from trillium.trees import TokenTree


class TokenRewardsConfig(TokenPPOConfig):
    """Choose how the DPO model is trained, and how PPO draws and learns."""

    dpo: DPOConfig = Field(default=DPOConfig(), description="of the model that rewards tokens")
    train: TrainConfig = Field(default=TrainConfig(), description="of that model")


@dataclass(frozen=True)
class TokenRewards:
    """Say where the two adapters are; `adapter` is the one to serve.

    `metrics` holds one row per iteration of PPO. Its `kl` is the mean log-ratio of fresh samples to
    the start, in nats per completion, `clipped` the share of tokens whose ratio left the clip.
    """

    aligned: Path
    adapter: Path
    metrics: tuple[dict[str, int | float], ...]


def train_token_rewards(
    config: TokenRewardsConfig,
    pairs: Sequence[TokenTree],
    prompts: Sequence[Prompt],
    model: PeftModel,
    generator: Generator,
    folder: Path,
    *,
    judge: Judge | None = None,
) -> TokenRewards:
    """Train RTO, reinforced token optimisation (arXiv 2404.18922), from pairs and prompts.

    First DPO on the pairs; then PPO, from where DPO began, on the log-ratios of the DPO model as
    rewards of single tokens, plus what `judge` says of the whole completion where there is one. The
    value function is an adapter of its own on the same base with a value head; advantages are
    standardised over an iteration. Resumable like every run.
    """
    with Run.open(folder, config, seed=config.seed) as run:
        start = run.stage(
            "start", {"base": fingerprint_base(model), "start": adapter_digest(model)}
        )
        if start.is_due:
            save_adapter(model, start.work / "start")
            start.finish(["start"])
        restore_adapter(model, start.path("start"))
        reference = take_reference(model)
        aligned = _align(config, pairs, model, reference, run, start)
        inputs = {"start": start.hash, "aligned": aligned.record.outputs["aligned/adapter"]}
        inputs |= {"config": hash_config(config), "prompts": hash_prompts(prompts)}
        ppo = run.stage("ppo", {**inputs, "judge": judge.identity if judge else "none"})
        if ppo.is_due:
            restore_adapter(model, start.path("start"))
            restore_adapter(model, aligned.path("aligned/adapter"), name=ALIGNED_ADAPTER)
            method = TokenPPO(model, reference, config)
            output = ppo.work / "ppo"
            train_online(
                config, method, prompts, model, generator, output, judge=judge, title="rto"
            )
            model.delete_adapter(CRITIC_ADAPTER)
            outputs = ("adapter", "metrics.jsonl", "timing.jsonl", "rollouts")
            ppo.finish([f"ppo/{name}" for name in outputs])
        restore_adapter(model, ppo.path("ppo/adapter"))
    metrics = tuple(read_metrics(ppo.path("ppo")))
    return TokenRewards(aligned.path("aligned/adapter"), ppo.path("ppo/adapter"), metrics)


def _align(
    config: TokenRewardsConfig,
    pairs: Sequence[TokenTree],
    model: PeftModel,
    reference: LiveReference,
    run: Run,
    start: Stage,
) -> Stage:
    """Train the DPO model whose log-ratios will reward tokens."""
    plan = AlignConfig(objective=config.dpo, train=config.train)
    inputs = {"start": start.hash, "pairs": hash_trees(pairs), "config": hash_config(plan)}
    stage = run.stage("align", inputs)
    if stage.is_due:
        align(plan, pairs, model, reference, stage.work / "aligned", title="align")
        stage.finish([f"aligned/{name}" for name in ("adapter", "metrics.jsonl", "timing.jsonl")])
    return stage
