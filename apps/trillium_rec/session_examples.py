"""Sessions to imitate: what a user liked before a good session, and the items of that session.

OneRec's training pairs (arXiv 2502.18965, Section 3.2): positive history in, session out. A session
counts only when it ended before the user's validation item, so that nothing judged is learned from.
"""

from dataclasses import dataclass

import numpy as np
from trillium.errors import ConfigError, DataError

from trillium_rec.dataset import Dataset
from trillium_rec.sessions import SessionConfig, split_sessions
from trillium_rec.splits import Sequences, pack


@dataclass(frozen=True)
class SessionExamples:
    """Hold histories and the sessions that followed, by row."""

    histories: Sequences
    sessions: Sequences


def session_examples(
    log: Dataset, positive: Dataset, config: SessionConfig, *, n_session: int
) -> SessionExamples:
    """Return an example per good session of a training user, its first `n_session` items.

    `positive` holds the positive events of `log`. Items that a session repeats count once.
    Raises ConfigError for a log without times, DataError when no session is left.
    """
    if log.events.timestamp is None or positive.events.timestamp is None:
        raise ConfigError(
            "sessions: the log has no timestamps (needed to tell what came before a session); name "
            "their column, or leave sessions out"
        )
    sessions = split_sessions(log.events, config)
    assert sessions.events.timestamp is not None
    begins = np.minimum.reduceat(sessions.events.timestamp, sessions.starts[:-1])
    ends = np.maximum.reduceat(sessions.events.timestamp, sessions.starts[:-1])
    row_of = {name: row for row, name in enumerate(positive.users)}
    offsets = positive.offsets()
    histories, lists = [], []
    for session in np.flatnonzero(sessions.is_good).tolist():
        row = row_of.get(log.users[sessions.user[session]])
        if row is None:
            continue
        own = slice(offsets[row], offsets[row + 1])
        times, items = positive.events.timestamp[own], positive.events.item[own]
        is_judged = len(times) >= 3
        if is_judged and ends[session] >= times[-2]:
            continue
        before = items[times < begins[session]]
        if len(before):
            histories.append(before)
            lists.append(
                np.array(list(dict.fromkeys(sessions.items(session).tolist())))[:n_session]
            )
    if not histories:
        raise DataError(
            "sessions: no good session has a positive event before it and ends before the "
            "validation item; lower the thresholds of the rules"
        )
    return SessionExamples(pack(histories), pack(lists))
