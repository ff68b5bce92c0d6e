"""One arm of the alignment experiment: its rounds, and what they did to the panel."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from trillium.files import write_atomically
from trillium.runs import Run, Stage

from trillium_rec.alignment.arms import ARMS
from trillium_rec.alignment.config import AlignConfig
from trillium_rec.alignment.measures import (
    Measured,
    Panel,
    best_rewarded,
    likeliest,
    measure_policy,
    rerank_lists,
)
from trillium_rec.alignment.pool import Drawing
from trillium_rec.alignment.rounds import (
    AlignedRound,
    Materials,
    Snapshot,
    align_model,
    draw_stage,
    load_weights,
    read_pool,
)
from trillium_rec.modelling import Model
from trillium_rec.ranking import Request
from trillium_rec.recommenders import CodeBeams

Ints = NDArray[np.int64]
_LIST_LENGTH = 50


@dataclass(frozen=True)
class ArmResult:
    """Hold the measures of an arm, its seconds of training, and the means of its epochs."""

    measured: Measured
    seconds: float
    rounds: tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class ArmRun:
    """Run arms of one seed, all from the same start."""

    run: Run
    base: AlignConfig
    train: Stage
    materials: Materials
    panel: Panel
    judge_hash: str

    def finish(self, name: str, model: Model) -> ArmResult:
        """Train where the arm trains, measure, and return both."""
        arm = ARMS[name]
        start = Snapshot(self.train.path("model"), self.train.hash)
        rounds: tuple[AlignedRound, ...] = ()
        if arm.is_trained:
            config = arm.configure(self.base)
            rounds = align_model(self.run, name, config, model, start, self.materials)
            start = rounds[-1].snapshot
        measured = self.measure(name, model, start, shows_best=name == "rerank")
        metrics = tuple(each.metrics for each in rounds)
        return ArmResult(measured, sum(each.seconds for each in rounds), metrics)

    def measure(
        self, name: str, model: Model, snapshot: Snapshot, *, shows_best: bool = False
    ) -> Measured:
        """Measure a policy; with `shows_best` it shows the best of its sessions by the reward."""
        drawing = Drawing(self.base.n_beams, 1, self.base.n_session)
        drawn = draw_stage(
            self.run,
            drawing,
            model,
            snapshot,
            self.materials,
            self.panel.histories,
            title=f"measure {name}",
        )
        inputs = {"pool": drawn.hash, "judge": self.judge_hash, **self.materials.inputs}
        inputs |= {"shows": "best" if shows_best else "likeliest", "policy": snapshot.hash}
        stage = self.run.stage(f"measure_{name}", inputs)
        output = f"measures/{name}.json"
        if stage.is_due:
            load_weights(model, snapshot.folder)
            lists = self._lists(name, model)
            pool = read_pool(drawn)
            sessions = best_rewarded(pool) if shows_best else likeliest(pool)
            if shows_best:
                lists = rerank_lists(sessions, lists)
            found = measure_policy(self.panel, model, sessions, lists)
            (stage.work / "measures").mkdir(parents=True, exist_ok=True)
            write_atomically(stage.work / output, json.dumps(asdict(found)) + "\n")
            stage.finish([output])
        row = json.loads(stage.path(output).read_text())
        values = {key: tuple(each) for key, each in row["values"].items()}
        return Measured(tuple(row["users"]), values, row["totals"])

    def _lists(self, name: str, model: Model) -> Ints:
        beams = CodeBeams(name, model, self.materials.trie, _LIST_LENGTH)
        request = Request(
            self.panel.histories, self.materials.is_eligible, seed=self.materials.seed
        )
        return beams.recommend(request, _LIST_LENGTH).items.numpy()
