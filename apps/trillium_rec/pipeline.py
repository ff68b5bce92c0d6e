"""`run_rec`: from a run file to a judged recommender, one resumable stage after another.

    content   item texts -> vectors, where the catalogue has texts and no vectors
    ids       vectors and training sequences -> semantic ids
    sasrec    training sequences -> the baseline
    train     training sequences and ids -> the model
    fuse      validation items -> weights of the scorers (lazy model)
    reward    shown lists -> the reward model and, from other users, the judge
    align     sessions that the model writes -> the aligned model, round after round
    evaluate  test items -> measures, and lists to look at

A stage is skipped when its inputs hash to what they were. A run killed at any moment and started
again ends in the same results; training continues at its last finished epoch.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from trillium.files import write_atomically
from trillium.manifest import StageRecord
from trillium.runs import Run, Stage, hash_config

from trillium_rec.alignment.run_alignment import RunAlignment, align_run
from trillium_rec.baselines import ItemToItem, baseline_recommenders
from trillium_rec.config import RecConfig, check_align, check_session, needed_parts
from trillium_rec.device import choose_device
from trillium_rec.evaluation import Evaluation, Judge
from trillium_rec.fit import write_log
from trillium_rec.id_fitting import content_stage, ids_stage
from trillium_rec.id_quality import IdQuality, describe_ids
from trillium_rec.modelling import (
    Model,
    build_model,
    load_model,
    load_sasrec,
    load_to_train,
    train_model,
    train_sasrec,
)
from trillium_rec.models.experts import expert_loads, forget_loads
from trillium_rec.models.lazy import LazyRecommender
from trillium_rec.preparation import RunData, prepare
from trillium_rec.ranking import Recommender, ScoreRecommender
from trillium_rec.recommenders import CodeBeams, Fused, Weights, fit_weights
from trillium_rec.reward.examples import check_log, read_labels
from trillium_rec.semantic_ids import SemanticIds, load_ids, load_space
from trillium_rec.trie import Trie

Until = Literal["ids", "train", "evaluate"]


@dataclass(frozen=True)
class RecResult:
    """Hold what a run found; later parts are absent when it was to stop before them.

    `stages` are those that the run asked for, not what earlier settings left in its folder.
    """

    folder: Path
    data: RunData
    ids: SemanticIds
    quality: IdQuality
    stages: dict[str, StageRecord] = field(default_factory=dict)
    weights: Weights | None = None
    evaluations: tuple[Evaluation, ...] = ()
    loads: tuple[tuple[float, ...], ...] = ()
    alignment: RunAlignment | None = None


def run_rec(config: RecConfig, until: Until = "evaluate") -> RecResult:
    """Do what is missing of a run, up to a stage, and return what it found.

    Raises ConfigError and DataError for input that cannot be used, before anything is trained.
    """
    parts = None if config.align is None else needed_parts(config)
    if parts is not None:
        check_align(config, parts.align)
    choose_device(config.device)
    found = prepare(config)
    # A reward that cannot be learned must not be found out after the training of the model.
    if parts is not None:
        check_log(found.log, parts.sessions, parts.reward.heads)
        check_session(parts.align, found.split.n_items)
    elif config.reward is not None:
        read_labels(found.log.events, config.reward.heads)
    with Run.open(config.output, config, seed=config.seed) as run:
        result = _Journey(config, found, run).finish(until)
    return replace(result, stages=run.manifest.current)


class _Journey:
    """The stages of one run, each a method; what a stage returns is read back from its files."""

    def __init__(self, config: RecConfig, found: RunData, run: Run) -> None:
        self._config, self._data, self._run = config, found, run
        self._everything = np.ones(found.split.n_items, np.bool_)

    def finish(self, until: Until) -> RecResult:
        """Go through the stages."""
        given = (self._run, self._config, self._data)
        fitted = ids_stage(*given, content_stage(*given))
        ids = load_ids(self._run.folder / "ids")
        quality = describe_ids(ids.codes, ids.sizes, self._data.split.train)
        if until == "ids":
            return self._result(ids, quality)
        train = self._train(fitted, ids)
        if until == "train":
            return self._result(ids, quality)
        return self._evaluate(train, ids, quality)

    def _result(self, ids: SemanticIds, quality: IdQuality) -> RecResult:
        return RecResult(self._run.folder, self._data, ids, quality)

    def _stage(self, name: str, inputs: dict[str, str]) -> Stage:
        return self._run.stage(name, {**inputs, "data": self._data.hash})

    def _vectors(self) -> NDArray[np.float32] | None:
        if self._config.ids.path is not None:
            return None
        return load_space(self._run.folder / "ids").vectors

    def _train(self, ids_stage: Stage, ids: SemanticIds) -> Stage:
        config = self._config
        inputs = {"model": hash_config(config.model), "fit": hash_config(config.fit)}
        inputs |= {"ids": ids_stage.hash, "seed": str(config.seed)}
        inputs["valid_users"] = str(config.evaluate.n_valid_users)
        inputs["sessions"] = hash_config(config.sessions) if config.sessions else ""
        stage = self._stage("train", inputs)
        if stage.is_due:
            model = build_model(config, ids, self._vectors())
            judge = self._valid_judge()
            rows = train_model(config, model, self._data, judge, ids, stage.work / "fit")
            model.save_pretrained(stage.work / "model")
            write_log(rows, stage.work / "metrics.jsonl")
            counts = {"epochs": len(rows), "parameters": _count_parameters(model)}
            stage.finish(["model", "metrics.jsonl"], counts)
        return stage

    def _sasrec(self) -> Stage:
        config = self._config
        inputs = {"fit": hash_config(config.fit), "seed": str(config.seed)}
        inputs |= {"max_items": str(config.model.max_items), "dropout": str(config.model.dropout)}
        inputs["valid_users"] = str(config.evaluate.n_valid_users)
        stage = self._stage("sasrec", inputs)
        if stage.is_due:
            split = self._data.split
            rows = train_sasrec(
                config,
                split.train,
                split.n_items,
                self._valid_judge(),
                stage.work / "fit",
                stage.work / "sasrec",
            )
            stage.finish(["sasrec"], {"epochs": len(rows)})
        return stage

    def _fuse(
        self, train: Stage, model: LazyRecommender, trie: Trie, counts: ItemToItem
    ) -> Weights:
        width, n_valid_users = self._config.evaluate.width, self._config.evaluate.n_valid_users
        inputs = {"model": train.hash, "width": str(width), "seed": str(self._config.seed)}
        stage = self._stage("fuse", {**inputs, "valid_users": str(n_valid_users)})
        if stage.is_due:
            weights = fit_weights(model, trie, counts, self._valid_judge(), width=width)
            write_atomically(stage.work / "weights.json", json.dumps(asdict(weights)) + "\n")
            stage.finish(["weights.json"], asdict(weights))
        return Weights(**json.loads(stage.path("weights.json").read_text()))

    def _evaluate(self, train: Stage, ids: SemanticIds, quality: IdQuality) -> RecResult:
        """Judge every recommender on the test items; lists are computed anew, rows are kept."""
        config, split = self._config, self._data.split
        model = load_model(config, train.path("model"), ids)
        trie = Trie.build(ids).to(model.device)
        recommenders: list[Recommender] = [
            *baseline_recommenders(split.train, n_items=split.n_items, device=model.device)
        ]
        if config.evaluate.with_sasrec:
            sasrec = load_sasrec(config, self._sasrec().path("sasrec"))
            recommenders.append(ScoreRecommender("sasrec", sasrec))
        width = config.evaluate.width
        alignment = self._align(train, ids)
        if alignment is not None and alignment.snapshot is not None:
            aligned = load_model(config, alignment.snapshot.folder, ids)
            name = f"{config.model.name}, codes aligned"
            recommenders.append(CodeBeams(name, aligned, trie, width))
        recommenders.append(CodeBeams(f"{config.model.name}, codes", model, trie, width))
        weights = None
        if isinstance(model, LazyRecommender):
            counts = ItemToItem(split.train, n_items=split.n_items)
            weights = self._fuse(train, model, trie, counts)
            recommenders.append(ScoreRecommender("lazy, dense", model))
            recommenders.append(Fused("lazy, fused", model, trie, counts, weights, width))
        judge = self._data.judge(
            "test", self._everything, vectors=self._vectors(), seed=config.seed
        )
        inputs = {"model": train.hash, "evaluate": hash_config(config.evaluate)}
        if alignment is not None and alignment.snapshot is not None:
            inputs["aligned"] = alignment.snapshot.hash
        stage = self._stage("evaluate", inputs)
        forget_loads(model)  # fitting the weights, where that was due, counted too
        evaluations = tuple(judge.evaluate(each) for each in recommenders)
        if stage.is_due:
            rows = [json.dumps(evaluation_row(each)) for each in evaluations]
            write_atomically(stage.work / "evaluation.jsonl", "\n".join(rows) + "\n")
            stage.finish(["evaluation.jsonl"], {"users": len(judge.judged.target)})
        return RecResult(
            self._run.folder,
            self._data,
            ids,
            quality,
            weights=weights,
            evaluations=evaluations,
            loads=tuple(tuple(load) for load in expert_loads(model)),
            alignment=alignment,
        )

    def _align(self, train: Stage, ids: SemanticIds) -> RunAlignment | None:
        """Align a copy of the model, where the run says so."""
        if self._config.align is None:
            return None
        return align_run(
            self._run,
            self._config,
            needed_parts(self._config),
            self._data,
            train,
            load_to_train(self._config, train.path("model"), ids, self._data.split),
            ids,
            load_space(self._run.folder / "ids").vectors,
        )

    def _valid_judge(self) -> Judge:
        n_users = self._config.evaluate.n_valid_users
        return self._data.judge("valid", self._everything, n_users=n_users, seed=self._config.seed)


def evaluation_row(found: Evaluation) -> dict[str, object]:
    """Return the measures of one recommender as a row of a file."""
    return {
        "name": found.name,
        "n_users": len(found.ranks),
        **{name: asdict(interval) for name, interval in found.metrics.items()},
        "validity": found.validity,
        "coverage": found.coverage,
        "exposure_gini": found.exposure_gini,
        "novelty": found.novelty,
        "diversity": found.diversity,
        "deciles": [asdict(group) for group in found.deciles],
        "cold": asdict(found.cold),
    }


def _count_parameters(model: Model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
