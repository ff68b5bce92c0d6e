"""Sessions: which events one request returned or one sitting held, and which sessions are good.

OneRec trains on high-quality sessions (arXiv 2502.18965, Section 3.1): enough videos actually
watched, enough watch time in all, or an interaction such as a like. Reading: the paper names the
criteria and not how they combine; here `combine` says it.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from trillium.errors import ConfigError, DataError

from trillium_rec.dataset import Events


class QualityRule(BaseModel):
    """Ask one thing of a session: a statistic of a feedback column, or its number of events."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str | None = Field(None, description="feedback column; none counts events")
    statistic: Literal["count", "sum", "mean", "max"] = Field(
        "count", description="count: events whose value is at least `event_at_least`"
    )
    event_at_least: float = Field(0.0, description="value from which `count` counts an event")
    at_least: float = Field(description="value of the statistic from which a session passes")


class SessionConfig(BaseModel):
    """Choose what a session is and which sessions are worth imitating."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["gap", "request"] = Field("gap", description="a pause ends a session, or an id")
    gap_s: float = Field(1800.0, gt=0, description="pause that ends a session, seconds")
    rules: tuple[QualityRule, ...] = Field((), description="what a high-quality session shows")
    combine: Literal["any", "all"] = Field("any", description="how many of the rules must hold")


@dataclass(frozen=True)
class Sessions:
    """Hold runs of events: session s is the events from starts[s] up to starts[s + 1].

    `is_good` marks the sessions that pass the rules; with no rule all do.
    """

    events: Events
    starts: NDArray[np.int64]
    is_good: NDArray[np.bool_]

    @property
    def n_sessions(self) -> int:
        """Count the sessions."""
        return len(self.starts) - 1

    @property
    def user(self) -> NDArray[np.int64]:
        """Return the user of each session."""
        return self.events.user[self.starts[:-1]]

    def items(self, session: int) -> NDArray[np.int64]:
        """Return the items of one session in order."""
        return self.events.item[self.starts[session] : self.starts[session + 1]]


def split_sessions(events: Events, config: SessionConfig) -> Sessions:
    """Cut the events of every user into sessions and judge each by the rules.

    Raises ConfigError when the log lacks times or request ids that `by` needs, DataError when a
    rule names an unknown or constant column, or no session passes.
    """
    changes = np.diff(events.user) != 0
    if config.by == "request":
        if events.request is None:
            raise ConfigError(
                "sessions.by = request: the log has no request ids; name their column, or use gap"
            )
        # Requests may overlap in time; the events of one belong together.
        events = events.take(np.lexsort((np.arange(events.n_events), _first_event(events))))
        assert events.request is not None
        changes = (np.diff(events.user) != 0) | (np.diff(events.request) != 0)
    else:
        if events.timestamp is None:
            raise ConfigError(
                "sessions.by = gap: the log has no timestamps; name their column, or use request"
            )
        changes |= np.diff(events.timestamp) > config.gap_s
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1, [events.n_events]]).astype(np.int64)
    is_good = _judge(events, starts, config)
    return Sessions(events, starts, is_good)


def _first_event(events: Events) -> NDArray[np.int64]:
    """Return for each event where the first event of its user's request stands."""
    assert events.request is not None
    pairs = np.stack([events.user, events.request], axis=1)
    _, first, inverse = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)].astype(np.int64)


def _judge(events: Events, starts: NDArray[np.int64], config: SessionConfig) -> NDArray[np.bool_]:
    n_sessions = len(starts) - 1
    if not config.rules:
        return np.ones(n_sessions, np.bool_)
    verdicts = np.stack([_apply(rule, events, starts) for rule in config.rules])
    is_good = verdicts.any(axis=0) if config.combine == "any" else verdicts.all(axis=0)
    if not is_good.any():
        raise DataError(
            f"sessions: none of {n_sessions} sessions passes {config.combine} of the "
            f"{len(config.rules)} rules; lower their thresholds"
        )
    return np.asarray(is_good, np.bool_)


def _apply(rule: QualityRule, events: Events, starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    sizes = np.diff(starts)
    if rule.column is None:
        return np.asarray(sizes >= rule.at_least, np.bool_)
    column = events.feedback_column(rule.column)
    values = column.astype(np.float64)
    if rule.statistic == "count":
        # The column is float32, where 0.7 is a little less than in float64; so thresholds are too.
        passes = column >= np.float32(rule.event_at_least)
        found = np.add.reduceat(passes.astype(np.int64), starts[:-1])
    elif rule.statistic == "max":
        found = np.maximum.reduceat(values, starts[:-1])
    else:
        found = np.add.reduceat(values, starts[:-1])
        found = found / sizes if rule.statistic == "mean" else found
    return np.asarray(found.astype(np.float32) >= np.float32(rule.at_least), np.bool_)
