"""Preference alignment within a run: reward model, judge, rounds, and what they did to its users.

The reward model learns from the lists of one half of the users and the judge from the other half,
both from lists that ended before the user's validation item. Each is measured on the half that the
other learned from. Unlike in the experiment, the policy has seen all users' training events, and
each judge has seen half of those that it is asked about.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from trillium.errors import ConfigError
from trillium.runs import Run, Stage

from trillium_rec.alignment.arm_run import ArmRun
from trillium_rec.alignment.gate import check_reward
from trillium_rec.alignment.measures import Measured, Panel, likeliest, rows_with_a_session
from trillium_rec.alignment.pool import Drawing
from trillium_rec.alignment.prompts import samples_of
from trillium_rec.alignment.rounds import Materials, Snapshot, align_model, draw_stage, read_pool
from trillium_rec.alignment.rule import Verdict, judge_arm
from trillium_rec.alignment.stages import other_form, train_reward
from trillium_rec.alignment.trial import oracle_of
from trillium_rec.config import Parts, RecConfig
from trillium_rec.modelling import Model
from trillium_rec.preparation import RunData
from trillium_rec.reward.examples import RewardExamples, reward_examples
from trillium_rec.reward.model import RewardModel
from trillium_rec.reward.quality import RewardQuality
from trillium_rec.semantic_ids import SemanticIds
from trillium_rec.sources import SimulatorSource, simulate_source
from trillium_rec.splits import Sequences, pack
from trillium_rec.trie import Trie

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RunAlignment:
    """Hold what alignment found; `refusal` says why there was none, and then the rest is absent.

    `sessions` are, for the panel's users, the session shown before and after; `snapshot` are the
    aligned weights. `n_left_out` users of the panel had taken every item and count nowhere.
    """

    reward: RewardQuality
    judge: RewardQuality
    refusal: str | None = None
    snapshot: Snapshot | None = None
    rounds: tuple[Mapping[str, float], ...] = ()
    before: Measured | None = None
    after: Measured | None = None
    verdict: Verdict | None = None
    panel_histories: Sequences | None = None
    sessions: tuple[Ints, Ints] | None = None
    n_left_out: int = 0


def align_run(
    run: Run,
    config: RecConfig,
    parts: Parts,
    found: RunData,
    train: Stage,
    model: Model,
    ids: SemanticIds,
    vectors: NDArray[np.float32],
) -> RunAlignment:
    """Do what is missing of the alignment of a run; afterwards `model` has the aligned weights.

    A reward model that hardly beats popularity and position aligns nothing: the sentence of the
    refusal is returned, because the rest of the run does not depend on it.
    """
    halves = _halves(config, parts, found)
    content = found.positive.catalogue.vectors
    reward, judge = (
        train_reward(run, name, each, mine, other, found, content, seed=seed, device=model.device)
        for name, each, mine, other, seed in (
            ("reward", parts.reward, halves[0], halves[1], config.seed),
            ("judge", other_form(parts.reward), halves[1], halves[0], config.seed + 1000),
        )
    )
    try:
        check_reward(parts.reward, reward.quality)
    except ConfigError as refusal:
        return RunAlignment(reward.quality, judge.quality, str(refusal))
    everything = np.ones(found.split.n_items, np.bool_)
    inputs = {"reward": reward.stage.hash, "ids": ids.version, "data": found.hash}
    materials = Materials(
        Trie.build(ids).to(model.device),
        torch.from_numpy(everything),
        samples_of(config, found, parts.sessions),
        reward.model,
        inputs,
        config.seed,
    )
    panel = _panel(config, found, reward.model, judge.model, everything, vectors)
    arms = ArmRun(run, parts.align, train, materials, panel, judge.stage.hash)
    start = Snapshot(train.path("model"), train.hash)
    before = arms.measure("seed", model, start)
    rounds = align_model(run, "align", parts.align, model, start, materials)
    after = arms.measure("aligned", model, rounds[-1].snapshot)
    drawing = Drawing(parts.align.n_beams, 1, parts.align.n_session)
    shown = [
        likeliest(
            read_pool(
                draw_stage(
                    run, drawing, model, snapshot, materials, panel.histories, title="sessions"
                )
            )
        )
        for snapshot in (start, rounds[-1].snapshot)
    ]
    return RunAlignment(
        reward.quality,
        judge.quality,
        snapshot=rounds[-1].snapshot,
        rounds=tuple(each.metrics for each in rounds),
        before=before,
        after=after,
        verdict=judge_arm({config.seed: {"seed": before, "aligned": after}}, "aligned"),
        panel_histories=panel.histories,
        sessions=(shown[0], shown[1]),
        n_left_out=panel.n_left_out,
    )


def _halves(config: RecConfig, parts: Parts, found: RunData) -> list[RewardExamples]:
    """Return the lists of two random halves of the users."""
    names = np.array(sorted(found.positive.users))
    order = np.random.default_rng(config.seed).permutation(len(names))
    deadlines = _deadlines(found)
    halves = []
    for half in np.array_split(names[order], 2):
        own = {user: deadlines[user] for user in half.tolist()}
        halves.append(
            reward_examples(
                found.log,
                found.positive,
                parts.sessions,
                parts.reward.heads,
                n_places=parts.reward.n_places,
                deadlines=own,
            )
        )
    return halves


def _deadlines(found: RunData) -> dict[str, float]:
    """Return the time of each user's validation item; users who are not judged have none."""
    times, offsets = found.positive.events.timestamp, found.positive.offsets()
    if times is None:
        raise ConfigError(
            "reward: the log has no timestamps (needed to tell what came before a list); name "
            "their column, or leave reward out"
        )
    ends = {}
    for row, name in enumerate(found.positive.users):
        own = times[offsets[row] : offsets[row + 1]]
        ends[name] = float(own[-2]) if len(own) >= 3 else np.inf
    return ends


def _panel(
    config: RecConfig,
    found: RunData,
    reward: RewardModel,
    judge: RewardModel,
    everything: NDArray[np.bool_],
    vectors: NDArray[np.float32],
) -> Panel:
    judge_of = found.judge(
        "test", everything, n_users=config.evaluate.n_panel_users, seed=config.seed
    )
    judged = judge_of.judged
    rows = rows_with_a_session(judged.histories, everything)
    users = tuple(found.positive.users[user] for user in judged.user[rows].tolist())
    oracle: Callable[[Ints], NDArray[np.float64]] | None = None
    if isinstance(config.data.source, SimulatorSource):
        oracle = oracle_of(simulate_source(config.data.source), users)
    targets = pack([np.array([item]) for item in judged.target[rows].tolist()])
    return Panel(
        users,
        judged.histories.take(rows),
        targets,
        reward,
        judge,
        oracle,
        found.split.popularity(),
        everything,
        vectors,
        n_left_out=len(judged.target) - len(rows),
    )
