"""The stages that a run and an experiment share: a reward model and its quality, by stage."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from trillium.files import hash_json, write_atomically
from trillium.runs import Run, Stage, hash_config

from trillium_rec.device import place_on
from trillium_rec.fit import write_log
from trillium_rec.preparation import RunData
from trillium_rec.reward.config import Architecture, RewardConfig
from trillium_rec.reward.examples import RewardExamples
from trillium_rec.reward.fitting import build_reward_model, train_reward_model
from trillium_rec.reward.model import RewardModel
from trillium_rec.reward.quality import HeadQuality, RewardQuality, measure_reward

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class TrainedReward:
    """Hold a reward model, what it is worth on users it never saw, and its stage."""

    model: RewardModel
    quality: RewardQuality
    stage: Stage


def other_form(config: RewardConfig) -> RewardConfig:
    """Return the configuration of the judge: the same heads, the other architecture."""
    other: Architecture = "pooled" if config.architecture == "target_aware" else "target_aware"
    return config.model_copy(update={"architecture": other, "pooling": "items"})


def train_reward(
    run: Run,
    name: str,
    config: RewardConfig,
    examples: RewardExamples,
    unseen: RewardExamples,
    found: RunData,
    vectors: Vectors | None,
    *,
    seed: int,
    device: torch.device,
) -> TrainedReward:
    """Train a reward model on `examples` and measure it on `unseen`, where that is still due."""
    inputs = {"reward": hash_config(config), "seed": str(seed), "data": found.hash}
    inputs |= {"lists": hash_examples(examples), "unseen": hash_examples(unseen)}
    stage = run.stage(name, inputs)
    if stage.is_due:
        n_items = found.positive.catalogue.n_items
        model = place_on(device, build_reward_model(config, n_items, vectors, seed=seed))
        rows = train_reward_model(config, model, examples, stage.work / "fit", seed=seed)
        popularity = found.split.popularity()
        quality = measure_reward(model, unseen, train=examples, popularity=popularity)
        model.save_pretrained(stage.work / name / "model")
        write_log(rows, stage.work / name / "metrics.jsonl")
        write_atomically(
            stage.work / name / "quality.json", json.dumps(asdict(quality), indent=1) + "\n"
        )
        counts = {"lists": examples.n_examples, "auc_gain": quality.auc_gain}
        counts["lists_of_users_without_history"] = examples.n_without_history
        stage.finish([name], counts)
    model = place_on(device, RewardModel.from_pretrained(stage.path(name) / "model"))
    return TrainedReward(model, read_quality(stage.path(name) / "quality.json"), stage)


def hash_examples(examples: RewardExamples) -> str:
    """Name examples by their content."""
    return hash_json(
        [
            list(examples.users),
            examples.histories.items.tolist(),
            examples.histories.starts.tolist(),
            examples.lists.tolist(),
            examples.labels.tolist(),
        ]
    )


def read_quality(path: Path) -> RewardQuality:
    """Return what a stage wrote about a reward model."""
    found = json.loads(path.read_text())
    heads = tuple(HeadQuality(**head) for head in found["heads"])
    return RewardQuality(heads, found["n_lists"], found["n_users"])
