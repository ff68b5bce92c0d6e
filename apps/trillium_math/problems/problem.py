"""A problem with its reference, and the table in which families of templates register.

A template is a pure function of a random source and a difficulty. The split is by template: the
templates held out for evaluation are never drawn for training, whatever the seed. Of those for
training some are for practice: a run may leave them out of its demonstrations, so that the policy
learns from its own attempts at problems that nobody solved for it.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from trillium.errors import ConfigError

Split = Literal["train", "held_out"]
Part = Literal["train", "shown", "practice", "held_out", "not_shown"]
"""Templates to draw from; shown and practice are the two parts of train."""
DIFFICULTIES = range(1, 6)


@dataclass(frozen=True)
class Draft:
    """Hold what a template wrote: `steps` reason line by line, `code` prints the answer."""

    question: str
    answer: str
    steps: tuple[str, ...]
    code: str


@dataclass(frozen=True)
class Problem:
    """Hold one problem. `reasoning` and `solution` are empty where a source has none.

    `solution` is a Python program whose output is the answer.
    """

    id: str
    question: str
    answer: str
    family: str = ""
    template: str = ""
    difficulty: int = 0
    reasoning: str = ""
    solution: str = ""


@dataclass(frozen=True)
class Template:
    """Hold one way to ask, and whether it is kept for evaluation."""

    family: str
    name: str
    draw: Callable[[random.Random, int], Draft]
    split: Split
    is_practice: bool = False

    def is_in(self, part: Part) -> bool:
        """Say whether the template belongs to a part of the split."""
        if part in ("train", "held_out"):
            return self.split == part
        is_shown = self.split == "train" and not self.is_practice
        if part == "practice":
            return self.split == "train" and self.is_practice
        return is_shown == (part == "shown")

    def make(self, seed: int, index: int, difficulty: int) -> Problem:
        """Return problem `index` of this template, the same for equal arguments."""
        # A seed of its own per item: neighbouring seeds share no problems.
        key = f"{seed}/{self.family}/{self.name}/{difficulty}/{index}"
        draft = self.draw(random.Random(key), difficulty)
        return Problem(
            id=f"{self.family}/{self.name}/{hashlib.sha256(key.encode()).hexdigest()[:10]}",
            question=draft.question,
            answer=draft.answer,
            family=self.family,
            template=self.name,
            difficulty=difficulty,
            reasoning="\n".join(draft.steps),
            solution=draft.code,
        )


class Family:
    """Collect the templates of one family; the module that writes them fills it."""

    def __init__(self, name: str) -> None:
        """Start without templates."""
        self.name = name
        self.templates: list[Template] = []

    def template(
        self, *, held_out: bool = False, practice: bool = False
    ) -> Callable[[Callable[[random.Random, int], Draft]], Callable[[random.Random, int], Draft]]:
        """Register a function as a template under its own name."""

        def register(
            draw: Callable[[random.Random, int], Draft],
        ) -> Callable[[random.Random, int], Draft]:
            split: Split = "held_out" if held_out else "train"
            self.templates.append(Template(self.name, draw.__name__, draw, split, practice))
            return draw

        return register


def draw_problems(
    templates: Sequence[Template], *, n_problems: int, seed: int, difficulties: Sequence[int]
) -> list[Problem]:
    """Draw distinct problems, templates and difficulties in turn.

    Raises ConfigError when the templates have not that many different questions.
    """
    found: dict[str, Problem] = {}
    cells = [(template, level) for level in difficulties for template in templates]
    # The number of repeats in a row that shows a cell is exhausted.
    patience, index = 50, 0
    while len(found) < n_problems:
        before = len(found)
        for template, level in cells:
            if len(found) < n_problems:
                problem = template.make(seed, index, level)
                found.setdefault(problem.question, problem)
        index += 1
        patience = 50 if len(found) > before else patience - 1
        if not patience:
            raise ConfigError(
                f"n_problems={n_problems}: the {len(templates)} templates gave only {len(found)} "
                "different questions; ask for fewer, or add families or difficulties"
            )
    return list(found.values())
