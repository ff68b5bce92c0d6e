"""Personal preferences in context (FSPO, Asap7772/fspo): earlier choices before a question.

Rows are split by user, never by row: a user that was trained on says nothing about a new one.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trillium.errors import DataError
from trillium.records import PairRow
from trillium.strategies.asking import as_text


@dataclass(frozen=True)
class Personal:
    """Hold rows with a user's choices in their prompts: to train on, and of other users."""

    train: list[PairRow]
    held_out: list[PairRow]
    n_without_examples: int


def personalise(
    rows: Sequence[PairRow],
    users: Sequence[str],
    *,
    n_examples: int,
    held_out: float,
    seed: int,
) -> Personal:
    """Put `n_examples` other choices of the same user before each prompt.

    `held_out` is the share of users that are kept apart. Rows of users with too few others are
    left out and counted. Raises DataError when no row is left.
    """
    by_user: dict[str, list[PairRow]] = {}
    for row, user in zip(rows, users, strict=True):
        by_user.setdefault(user, []).append(row)
    apart = _hold_out(sorted(by_user), held_out, seed)
    train: list[PairRow] = []
    others: list[PairRow] = []
    n_without = 0
    for user, own in by_user.items():
        if len(own) <= n_examples:
            n_without += len(own)
            continue
        target = others if user in apart else train
        for index, row in enumerate(own):
            chance = random.Random(f"{seed}/{user}/{index}")
            examples = chance.sample([other for other in own if other is not row], n_examples)
            target.append(replace(row, prompt=render(examples, as_text(row.prompt))))
    if not train and not others:
        raise DataError(
            f"no user has more than {n_examples} rows (needs one more than examples); "
            "lower --examples"
        )
    return Personal(train, others, n_without)


def render(examples: Sequence[PairRow], question: str) -> str:
    """Return the prompt: the user's choices as sections, then the new question."""
    parts = ["Here is what this user preferred before."]
    for number, row in enumerate(examples, start=1):
        parts.append(
            f"## Question {number}\n{as_text(row.prompt)}\n\n"
            f"### Preferred\n{as_text(row.chosen)}\n\n"
            f"### Not preferred\n{as_text(row.rejected)}"
        )
    parts.append(f"## New question\n{question}\n\nAnswer it as this user would prefer.")
    return "\n\n".join(parts)


def read_users(records: Sequence[Mapping[str, object]], field: str, where: str) -> list[str]:
    """Return who chose in each record; raises DataError naming the first line without."""
    users = []
    for number, record in enumerate(records, start=1):
        value = record.get(field)
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise DataError(
                f"{where}:{number}: field {field!r} is {value!r} (needs a name or number); "
                "add it, or name another field with --user"
            )
        users.append(str(value))
    return users


def _hold_out(users: Sequence[str], share: float, seed: int) -> set[str]:
    n = round(share * len(users))
    return set(random.Random(f"{seed}/held out").sample(list(users), n))
