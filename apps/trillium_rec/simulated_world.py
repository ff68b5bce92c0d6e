"""The items and users of the simulator, and the response of a user to a list: the oracle.

Items live in a two-level topic tree (8 groups of 8 topics). Nothing here is drawn from real data.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

GROUPS = {
    "Garden": ("seeds", "tools", "ponds", "roses", "lawns", "herbs", "sheds", "birds"),
    "Kitchen": ("knives", "bread", "coffee", "spices", "ovens", "soups", "pans", "tea"),
    "Music": ("pianos", "guitars", "drums", "vinyl", "choirs", "jazz", "violins", "synths"),
    "Sport": ("running", "climbing", "tennis", "rowing", "skiing", "boxing", "yoga", "cycling"),
    "Travel": ("trains", "islands", "deserts", "maps", "tents", "cities", "boats", "bridges"),
    "Science": ("stars", "fossils", "robots", "cells", "lasers", "storms", "volcanoes", "atoms"),
    "Craft": ("pottery", "knitting", "lace", "wood", "glass", "leather", "paper", "candles"),
    "Animals": ("cats", "horses", "bees", "whales", "owls", "foxes", "frogs", "wolves"),
}
N_TOPICS = 64
N_DIMENSIONS = 64
HEADS = ("view", "follow", "like")
# Shares of shown videos that are viewed, followed, liked (arXiv 2502.18965, Table 1, rounded).
BASE_RATES = {"view": 0.45, "follow": 0.003, "like": 0.03}
_STEEPNESS = {"view": 1.5, "follow": 1.0, "like": 1.2}


@dataclass(frozen=True)
class World:
    """Hold the items: topic, content, quality, duration, exposure and the day they appear."""

    topic: Ints
    content: Floats
    centres: Floats
    quality: Floats
    duration_s: Floats
    exposure: Floats
    birth_day: Ints
    titles: tuple[str, ...]

    @property
    def n_items(self) -> int:
        """Count the items."""
        return len(self.topic)


@dataclass(frozen=True)
class Taste:
    """Hold the users at one moment: lasting interests, the topic of the day, love of rare items."""

    interests: Floats
    topic_of_day: Ints
    novelty: Floats

    def take(self, users: Ints) -> "Taste":
        """Return the same for some of the users."""
        return Taste(self.interests[users], self.topic_of_day[users], self.novelty[users])


@dataclass(frozen=True)
class Response:
    """Hold what is expected of each item of each list: seconds watched, and probabilities."""

    watch_s: Floats
    probabilities: dict[str, Floats]


@dataclass(frozen=True)
class Oracle:
    """Know what users think of any list; the judge that no model sees.

    `intercepts` were set so that what the log showed on its first day has the base rates.
    """

    world: World
    taste: Taste
    intercepts: dict[str, float]
    typical_watch_s: float

    def respond(self, users: Ints, lists: Ints) -> Response:
        """Return the expected response of each user to a list of items, in that order."""
        affinity = affinity_of(self.world, self.taste.take(users), lists)
        return respond(self.world, affinity, lists, self.intercepts)

    def reward(self, users: Ints, lists: Ints) -> Floats:
        """Return one value per list: 1 is what an average list of the log was worth.

        The mean over items and four parts: watch time, views, follows and likes, each divided by
        its average on the log's first day, so that no part drowns another.
        """
        response = self.respond(users, lists)
        parts = [response.watch_s / self.typical_watch_s]
        parts += [response.probabilities[head] / BASE_RATES[head] for head in HEADS]
        return np.asarray(np.mean(parts, axis=(0, 2)), np.float64)


def make_world(random: np.random.Generator, *, n_items: int, n_days: int) -> World:
    """Draw the items; one in ten appears in the last quarter of the days, as cold items do."""
    groups = random.normal(size=(8, N_DIMENSIONS))
    topics = random.normal(size=(N_TOPICS, N_DIMENSIONS))
    centres = _unit(np.repeat(groups, 8, axis=0) + 0.8 * topics)
    topic = random.choice(N_TOPICS, n_items, p=random.dirichlet(np.full(N_TOPICS, 5.0)))
    noise = random.normal(size=(n_items, N_DIMENSIONS)) / np.sqrt(N_DIMENSIONS)
    exposure = (1 + random.permutation(n_items)) ** -0.9
    is_late = random.random(n_items) < 0.1
    birth = np.where(is_late, random.integers(max(1, n_days * 3 // 4), n_days, n_items), 0)
    names = [f"{group}: {sub}" for group, subs in GROUPS.items() for sub in subs]
    return World(
        topic=topic.astype(np.int64),
        content=_unit(centres[topic] + 0.7 * noise),
        centres=centres,
        quality=random.normal(size=n_items),
        duration_s=np.exp(random.normal(np.log(30.0), 0.7, n_items)),
        exposure=exposure / exposure.sum(),
        birth_day=birth.astype(np.int64),
        titles=tuple(f"{names[t]}, part {i}" for i, t in enumerate(topic.tolist(), 1)),
    )


def make_taste(random: np.random.Generator, *, n_users: int) -> Taste:
    """Draw the users: a few groups each, a few topics within them."""
    groups = random.dirichlet(np.full(8, 0.3), n_users)
    within = random.dirichlet(np.full(8, 0.4), (n_users, 8))
    interests = (groups[:, :, None] * within).reshape(n_users, N_TOPICS)
    return Taste(interests, draw_topics(random, interests), random.normal(0.0, 0.5, n_users))


def pass_day(random: np.random.Generator, taste: Taste) -> Taste:
    """Let interests drift a little, and let one user in three turn to another topic."""
    n_users = len(taste.novelty)
    towards = make_taste(random, n_users=n_users).interests
    interests = 0.98 * taste.interests + 0.02 * towards
    turns = random.random(n_users) < 1 / 3
    topic = np.where(turns, draw_topics(random, interests), taste.topic_of_day)
    return Taste(interests, topic, taste.novelty)


def draw_topics(random: np.random.Generator, weights: Floats) -> Ints:
    """Draw one topic per row of unnormalised weights."""
    sums = weights.cumsum(axis=1)
    point = random.random((len(weights), 1)) * sums[:, -1:]
    return np.asarray(np.minimum((sums <= point).sum(axis=1), weights.shape[1] - 1), np.int64)


def affinity_of(world: World, taste: Taste, lists: Ints) -> Floats:
    """Return how much each user likes each item of a list, in that order.

        2.5 cos(user, item) + topic of the day + quality/2 + novelty * rarity
            - 0.6 * earlier items of the list with this topic - 0.05 * position

    Differs from user to user in all but quality; the last two terms make it a value of lists.
    """
    user = _unit(np.sqrt(taste.interests) @ world.centres)
    topic = world.topic[lists]
    today = taste.topic_of_day[:, None]
    same_topic = topic[:, :, None] == topic[:, None, :]
    n_earlier = np.tril(same_topic, k=-1).sum(axis=2)
    rank = np.argsort(np.argsort(world.exposure)) / max(1, world.n_items - 1)
    return np.asarray(
        2.5 * np.einsum("ud,umd->um", user, world.content[lists])
        + 0.6 * (topic == today)
        + 0.4 * (topic // 8 == today // 8)
        + 0.5 * world.quality[lists]
        + taste.novelty[:, None] * (0.5 - rank[lists])
        - 0.6 * n_earlier
        - 0.05 * np.arange(lists.shape[1]),
        np.float64,
    )


def respond(world: World, affinity: Floats, lists: Ints, intercepts: dict[str, float]) -> Response:
    """Turn affinities into expected watch time and probabilities of view, follow and like."""
    watch_s = 8.0 * _sigmoid(affinity) * np.log1p(world.duration_s[lists])
    return Response(
        watch_s,
        {head: _sigmoid(intercepts[head] + _STEEPNESS[head] * affinity) for head in HEADS},
    )


def fit_intercepts(affinity: Floats) -> dict[str, float]:
    """Return the intercepts that give these affinities the base rates, by bisection."""
    return {head: _bisect(affinity, _STEEPNESS[head], BASE_RATES[head]) for head in HEADS}


def _bisect(affinity: Floats, steepness: float, rate: float) -> float:
    low, high = -60.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        if _sigmoid(middle + steepness * affinity).mean() < rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(values / 2)), np.float64)


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float64)
