"""A seedable simulator of sessions: a logging policy shows lists, users respond, an oracle knows.

Every event has its position's propensity, so that the log can be reweighted. No item is shown to a
user twice. The same configuration gives the same bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from trillium.config import Seed

from trillium_rec.dataset import Catalogue, Dataset, Events
from trillium_rec.simulated_world import (
    HEADS,
    Floats,
    Ints,
    Oracle,
    Taste,
    World,
    affinity_of,
    draw_topics,
    fit_intercepts,
    make_taste,
    make_world,
    pass_day,
    respond,
)

_DAY_S = 86_400
_MOST_TRIES = 200
# What the logging policy draws from: popular items, the user's topics, all items alike.
_ARMS = (0.3, 0.6, 0.1)

Preset = Literal["tiny", "small", "medium"]


class SimulatorConfig(BaseModel):
    """Choose the size of a simulated log."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_users: int = Field(1500, gt=0, description="users")
    n_items: int = Field(600, ge=100, description="items; a user is shown about 5 a day")
    n_days: int = Field(14, ge=4, description="days; seven in ten users come on each")
    seed: Seed = Field(0, description="seed of everything that is drawn")


SIZES: Mapping[Preset, tuple[int, int, int]] = {
    "tiny": (200, 200, 8),
    "small": (1500, 600, 14),
    "medium": (5000, 2000, 20),
}


@dataclass(frozen=True)
class Simulation:
    """Hold a log and the oracle that made it; the oracle's users are those after the last day."""

    dataset: Dataset
    oracle: Oracle


def preset_config(preset: Preset, *, seed: int = 0) -> SimulatorConfig:
    """Return the configuration of a preset."""
    n_users, n_items, n_days = SIZES[preset]
    return SimulatorConfig(n_users=n_users, n_items=n_items, n_days=n_days, seed=seed)


def simulate(config: SimulatorConfig) -> Simulation:
    """Draw a world, its users and their log; oracle and log number the users alike.

    Users who came on no day have no event and stay in the data set.
    """
    random = np.random.default_rng(config.seed)
    world = make_world(random, n_items=config.n_items, n_days=config.n_days)
    taste = make_taste(random, n_users=config.n_users)
    seen = np.zeros((config.n_users, 0), np.int64)
    intercepts: dict[str, float] = {}
    typical_watch_s = 0.0
    days = []
    for day in range(config.n_days):
        users = np.flatnonzero(random.random(config.n_users) < 0.7)
        shown = _show(random, world, taste.take(users), seen[users], day)
        affinity = affinity_of(world, taste.take(users), np.maximum(shown.lists, 0))
        if not intercepts:
            intercepts = fit_intercepts(affinity[shown.lists >= 0])
        days.append(_live(random, world, shown, affinity, intercepts, users, day))
        if not typical_watch_s:
            watch_s = respond(world, affinity, np.maximum(shown.lists, 0), intercepts).watch_s
            typical_watch_s = float(watch_s[shown.lists >= 0].mean())
        wider = np.full((config.n_users, shown.lists.shape[1]), -1)
        wider[users] = shown.lists
        seen = np.concatenate([seen, wider], axis=1)
        taste = pass_day(random, taste)
    return Simulation(
        _dataset(world, days, config), Oracle(world, taste, intercepts, typical_watch_s)
    )


@dataclass(frozen=True)
class _Shown:
    """Lists of one day, -1 beyond their end, and the propensity of each entry."""

    lists: Ints
    propensity: Floats


@dataclass(frozen=True)
class _Shelf:
    """The items that exist on a day: what each arm of the logging policy draws from."""

    popular: Floats
    within_topic: Floats
    uniform: Floats
    by_topic: Ints
    topic_ends: Floats
    has_items: Floats

    @classmethod
    def open(cls, world: World, day: int) -> "_Shelf":
        is_born = (world.birth_day <= day).astype(np.float64)
        popular, weight = world.exposure * is_born, np.exp(0.5 * world.quality) * is_born
        mass = np.bincount(world.topic, weight, minlength=64)
        within = np.divide(weight, mass[world.topic], out=np.zeros_like(weight), where=weight > 0)
        by_topic = np.argsort(world.topic, kind="stable")
        has_items = (mass > 0).astype(np.float64)
        return cls(
            popular / popular.sum(),
            within,
            is_born / is_born.sum(),
            by_topic.astype(np.int64),
            within[by_topic].cumsum(),
            has_items,
        )


def _show(random: np.random.Generator, world: World, taste: Taste, seen: Ints, day: int) -> _Shown:
    """Fill lists of 5 to 10 items one position after another, without what was seen before."""
    shelf = _Shelf.open(world, day)
    n_users = len(seen)
    length = random.integers(5, 11, n_users)
    wish = 0.5 * taste.interests * shelf.has_items
    today = shelf.has_items[taste.topic_of_day]
    wish[np.arange(n_users), taste.topic_of_day] += 0.5 * today
    wish /= np.maximum(wish.sum(axis=1, keepdims=True), 1e-300)
    lists, propensity = np.full((n_users, 10), -1), np.zeros((n_users, 10))
    rows = np.arange(n_users)[:, None]
    before = _chance(shelf, world, wish, rows, seen).sum(axis=1)
    going = np.ones(n_users, np.bool_)
    for position in range(10):
        going &= position < length
        active = np.flatnonzero(going)
        taken = np.concatenate([seen, lists[:, :position]], axis=1)
        items = _draw_new(random, shelf, world, wish[active], taken[active])
        # A user who has seen nearly everything there is goes away earlier.
        going[active[items < 0]] = False
        active, items = active[items >= 0], items[items >= 0]
        chance = _chance(shelf, world, wish, active[:, None], items[:, None])[:, 0]
        lists[active, position] = items
        propensity[active, position] = chance / np.maximum(1 - before[active], 1e-12)
        before[active] += chance
    return _Shown(lists.astype(np.int64), propensity)


def _chance(shelf: _Shelf, world: World, wish: Floats, rows: Ints, items: Ints) -> Floats:
    """Return the probability of each item in one draw; 0 for the padding -1."""
    popular, personal, uniform = _ARMS
    at = np.maximum(items, 0)
    chance = popular * shelf.popular[at] + uniform * shelf.uniform[at]
    chance = chance + personal * wish[rows, world.topic[at]] * shelf.within_topic[at]
    return np.asarray(np.where(items >= 0, chance, 0.0), np.float64)


def _draw_new(
    random: np.random.Generator, shelf: _Shelf, world: World, wish: Floats, taken: Ints
) -> Ints:
    """Draw one item per row that is not among those taken; -1 where none was found."""
    found = np.full(len(wish), -1)
    open_rows = np.arange(len(wish))
    for _ in range(_MOST_TRIES):
        if len(open_rows) == 0:
            break
        items = _draw(random, shelf, world, wish[open_rows])
        is_new = ~(taken[open_rows] == items[:, None]).any(axis=1)
        found[open_rows[is_new]] = items[is_new]
        open_rows = open_rows[~is_new]
    return found.astype(np.int64)


def _draw(random: np.random.Generator, shelf: _Shelf, world: World, wish: Floats) -> Ints:
    n_rows = len(wish)
    arm = random.choice(3, n_rows, p=_ARMS)
    popular = _inverse(shelf.popular.cumsum(), random.random(n_rows))
    uniform = _inverse(shelf.uniform.cumsum(), random.random(n_rows))
    topic = draw_topics(random, wish)
    n_before = np.concatenate([[0.0], shelf.has_items.cumsum()])[topic]
    place = _inverse(shelf.topic_ends, (n_before + random.random(n_rows)) / shelf.topic_ends[-1])
    return np.choose(arm, [popular, shelf.by_topic[place], uniform]).astype(np.int64)


def _inverse(ends: Floats, points: Floats) -> Ints:
    """Return where each point in [0, 1) falls among cumulative weights."""
    place = np.searchsorted(ends, points * ends[-1], side="right")
    return np.asarray(np.minimum(place, len(ends) - 1), np.int64)


def _live(
    random: np.random.Generator,
    world: World,
    shown: _Shown,
    affinity: Floats,
    intercepts: dict[str, float],
    users: Ints,
    day: int,
) -> Events:
    """Let the users watch, follow and like what they were shown."""
    lists = np.maximum(shown.lists, 0)
    response = respond(world, affinity, lists, intercepts)
    watch_s = response.watch_s * np.exp(random.normal(-0.045, 0.3, lists.shape))
    started = day * _DAY_S + random.integers(0, _DAY_S // 2, (len(users), 1))
    times = started + np.cumsum(watch_s, axis=1)
    actions = {head: random.random(lists.shape) < response.probabilities[head] for head in HEADS}
    there = shown.lists >= 0
    row = np.broadcast_to(users[:, None], lists.shape)[there]
    return Events(
        user=row.astype(np.int64),
        item=shown.lists[there],
        timestamp=np.round(times[there], 3),
        request=np.full(len(row), day, np.int64),
        feedback={
            "watch_s": watch_s[there].astype(np.float32),
            **{head: values[there].astype(np.float32) for head, values in actions.items()},
            "propensity": shown.propensity[there].astype(np.float32),
        },
    )


def _dataset(world: World, days: list[Events], config: SimulatorConfig) -> Dataset:
    joined = Events(
        user=np.concatenate([day.user for day in days]),
        item=np.concatenate([day.item for day in days]),
        timestamp=np.concatenate([np.asarray(day.timestamp) for day in days]),
        request=np.concatenate([np.asarray(day.request) for day in days]),
        feedback={
            name: np.concatenate([day.feedback[name] for day in days]) for name in days[0].feedback
        },
    )
    assert joined.timestamp is not None
    order = np.lexsort((joined.timestamp, joined.user)).astype(np.int64)
    catalogue = Catalogue(
        ids=tuple(str(number) for number in range(config.n_items)),
        titles=world.titles,
        texts=world.titles,
        vectors=world.content.astype(np.float32),
    )
    users = tuple(str(number) for number in range(config.n_users))
    n_seen = len(np.unique(joined.item))
    return Dataset(
        users,
        catalogue,
        joined.take(order),
        {"items_without_events": config.n_items - n_seen},
    )
