"""The rounds of preference alignment as stages of a run: draw, train, take a new snapshot.

    pool_HASH     snapshot, prompts, reward model -> sessions with rewards
    NAME_0        snapshot and pool -> the model of the first round, the next snapshot
    NAME_1 ...

A stage is skipped when its inputs hash to what they were; pools are named by their inputs, so arms
that begin alike share them. A run killed at any moment and started again ends in the same bytes.
The core's rounds train adapters on token trees; a recommender has neither, so it shares with them
the stages, the seeds and the objectives, and not the loop.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from safetensors.torch import load_model as fill_model
from torch import Tensor
from trillium.files import hash_json, write_atomically
from trillium.runs import Run, Stage, hash_config
from trillium.training.rounds import derive_seed

from trillium_rec.alignment.config import AlignConfig
from trillium_rec.alignment.epoch import compare_sessions, train_epoch
from trillium_rec.alignment.pool import Drawing, Pool, draw_pool
from trillium_rec.alignment.prompts import Prompted, draw_share
from trillium_rec.modelling import Model
from trillium_rec.reward.model import RewardModel
from trillium_rec.splits import Sequences
from trillium_rec.trie import Trie

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Materials:
    """Hold what every round of every arm works with; `inputs` name it by content."""

    trie: Trie
    is_eligible: Bool[Tensor, " item"]
    samples: Prompted
    reward: RewardModel
    inputs: Mapping[str, str]
    seed: int


@dataclass(frozen=True)
class Snapshot:
    """Name saved weights by folder and content."""

    folder: Path
    hash: str


@dataclass(frozen=True)
class AlignedRound:
    """Hold the weights that a round left behind, the means over its epoch, and its seconds."""

    snapshot: Snapshot
    metrics: Mapping[str, float]
    seconds: float


def align_model(
    run: Run, name: str, config: AlignConfig, model: Model, start: Snapshot, materials: Materials
) -> tuple[AlignedRound, ...]:
    """Do what is missing of all rounds, from the seed model's weights on.

    In the end `model` is the last round's. Folders lie in the run's folder under `name`.
    """
    rounds: list[AlignedRound] = []
    snapshot = start
    for number in range(config.n_rounds):
        stage = _round(run, name, number, config, model, snapshot, materials)
        folder = stage.path(f"{name}/round_{number}")
        metrics = json.loads((folder / "metrics.json").read_text())
        snapshot = Snapshot(folder / "model", stage.hash)
        rounds.append(AlignedRound(snapshot, metrics, stage.record.seconds))
    load_weights(model, snapshot.folder)
    return tuple(rounds)


def load_weights(model: Model, folder: Path) -> None:
    """Give a model the weights that another of its kind was saved with."""
    # Knows that OneRec's encoder shares its tokens with the decoder, and shows no bar.
    fill_model(model, folder / "model.safetensors")
    model.train(False)


def _round(
    run: Run,
    name: str,
    number: int,
    config: AlignConfig,
    model: Model,
    snapshot: Snapshot,
    materials: Materials,
) -> Stage:
    seed = derive_seed(materials.seed, "round", number)
    prompts = materials.samples.prompts(derive_seed(seed, "prompts"))
    rows = draw_share(materials.samples.n_samples, config.share, derive_seed(seed, "share"))
    drawn = None
    if config.objective is not None:
        title = f"draw sessions, round {number + 1}"
        drawing = Drawing(config.n_beams, config.n_groups, config.n_session)
        drawn = draw_stage(
            run, drawing, model, snapshot, materials, prompts.take(rows), title=title
        )
    inputs = {"align": hash_config(config), "snapshot": snapshot.hash, "seed": str(seed)}
    inputs |= {"pool": drawn.hash if drawn else "", **materials.inputs}
    stage = run.stage(f"{name}_{number}", inputs)
    if stage.is_due:
        load_weights(model, snapshot.folder)
        compared = None
        if drawn is not None:
            pool = read_pool(drawn)
            generator = torch.Generator().manual_seed(derive_seed(seed, "select"))
            compared = compare_sessions(model, pool, rows, prompts.take(rows), config, generator)
        metrics = train_epoch(model, materials.samples, compared, config, seed)
        output = stage.work / name / f"round_{number}"
        model.save_pretrained(output / "model")
        write_atomically(output / "metrics.json", json.dumps(metrics) + "\n")
        stage.finish([f"{name}/round_{number}"], {"prompts": metrics["prompts"]})
    return stage


def draw_stage(
    run: Run,
    drawing: Drawing,
    model: Model,
    snapshot: Snapshot,
    materials: Materials,
    prompts: Sequences,
    *,
    title: str,
) -> Stage:
    """Draw sessions from a snapshot for some prompts, where that is due."""
    inputs = {
        "snapshot": snapshot.hash,
        "prompts": hash_json([prompts.items.tolist(), prompts.starts.tolist()]),
        "drawing": hash_json(asdict(drawing)),
        "reward": materials.inputs["reward"],
    }
    stage = run.stage(f"pool_{hash_json(inputs)[:12]}", inputs)
    if stage.is_due:
        load_weights(model, snapshot.folder)
        pool = draw_pool(
            model,
            materials.trie,
            materials.is_eligible,
            prompts,
            materials.reward,
            drawing,
            title=title,
        )
        tensors = {"sessions": pool.sessions, "logps": pool.logps, "rewards": pool.rewards}
        (stage.work / "pools").mkdir(parents=True, exist_ok=True)
        save_file(
            {key: value.contiguous() for key, value in tensors.items()},
            stage.work / _pool_file(stage),
        )
        stage.finish([_pool_file(stage)], {"prompts": len(pool.sessions)})
    return stage


def read_pool(stage: Stage) -> Pool:
    """Return the sessions that a stage drew."""
    return Pool(**load_file(stage.path(_pool_file(stage))))


def _pool_file(stage: Stage) -> str:
    return f"pools/{stage.name}.safetensors"
