"""The splits of the alignment experiment: by user for those who judge, by time for what is judged.

Users are dealt to three parts: the policy learns from A, the reward model from B, the judge from C.
Of every user of A the last session that has a positive event is what must be predicted; nothing
from then on is learned from. So neither reward model nor judge has seen a user it is asked about.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from trillium.errors import DataError

from trillium_rec.dataset import Dataset, keep_events
from trillium_rec.preparation import RunData, hash_data
from trillium_rec.sessions import SessionConfig, split_sessions
from trillium_rec.simulator import Simulation
from trillium_rec.splits import Sequences, leave_one_out, pack

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
# A user needs this many positive events before the last session, to train and to validate on.
_LEAST_BEFORE = 3


@dataclass(frozen=True)
class Trial:
    """Hold one experiment's users: A's training part, the names of B and C, and what is judged.

    `histories` and `targets` are, of each user of A that is judged, the positive items before the
    last session and those of it, in time order, each target once. `n_too_short` users of A have
    too few events to be judged.
    """

    found: RunData
    of_reward: tuple[str, ...]
    of_judge: tuple[str, ...]
    users: tuple[str, ...]
    histories: Sequences
    targets: Sequences
    n_too_short: int


def make_trial(log: Dataset, positive: Dataset, sessions: SessionConfig, *, seed: int) -> Trial:
    """Deal the users (60, 20 and 20 %) and cut A's last sessions off.

    Raises DataError when no user of A can be judged.
    """
    names = np.array(sorted(positive.users))
    order = np.random.default_rng(seed).permutation(len(names))
    policy, reward, judge = np.split(names[order], [len(names) * 3 // 5, len(names) * 4 // 5])
    begins = _last_sessions(positive, sessions, frozenset(policy.tolist()))
    users, histories, targets, keep = [], [], [], np.zeros(positive.events.n_events, np.bool_)
    offsets, times = positive.offsets(), positive.events.timestamp
    assert times is not None
    for row, name in enumerate(positive.users):
        if name not in begins:
            continue
        own = slice(offsets[row], offsets[row + 1])
        is_before = times[own] < begins[name]
        if is_before.sum() < _LEAST_BEFORE:
            continue
        keep[own] = is_before
        users.append(name)
        histories.append(positive.events.item[own][is_before])
        liked = positive.events.item[own][~is_before].tolist()
        targets.append(np.array(list(dict.fromkeys(liked)), np.int64))
    if not users:
        raise DataError(
            f"align: none of {len(policy)} users has {_LEAST_BEFORE} positive events before the "
            "last session (one at least must); give a longer log"
        )
    before = keep_events(positive, keep, name="a_place_before_the_last_session")
    data = RunData(log, before, leave_one_out(before), hash_data(log, before))
    return Trial(
        data,
        tuple(reward.tolist()),
        tuple(judge.tolist()),
        tuple(users),
        pack(histories),
        pack(targets),
        len(policy) - len(users),
    )


def _last_sessions(
    positive: Dataset, sessions: SessionConfig, users: frozenset[str]
) -> dict[str, float]:
    """Return when the last session with a positive event began."""
    found = split_sessions(positive.events, sessions.model_copy(update={"rules": ()}))
    assert found.events.timestamp is not None
    begins = np.minimum.reduceat(found.events.timestamp, found.starts[:-1])
    last: dict[str, float] = {}
    for user, begin in zip(found.user.tolist(), begins.tolist(), strict=True):
        name = positive.users[user]
        if name in users:
            last[name] = max(begin, last.get(name, -np.inf))
    return last


def oracle_of(simulation: Simulation, users: tuple[str, ...]) -> Callable[[Ints], Floats]:
    """Return what asks the simulator's oracle about one list per user; -1 ends a list early.

    Lists of one length are asked together; a list without items is worth 0.
    """
    numbers = np.array([int(name) for name in users])

    def ask(lists: Ints) -> Floats:
        values = np.zeros(len(lists))
        lengths = (lists >= 0).sum(axis=1)
        for length in np.unique(lengths[lengths > 0]).tolist():
            rows = np.flatnonzero(lengths == length)
            values[rows] = simulation.oracle.reward(numbers[rows], lists[rows, :length])
        return values

    return ask
