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
    """Put `n_examples` choices of the same user before each prompt, made on other prompts.

    `held_out` is the share of users that are kept apart. Rows of users with too few others are
    left out and counted. Raises DataError when no row is left on a side that has a share.
    """
    by_user: dict[str, list[PairRow]] = {}
    for row, user in zip(rows, users, strict=True):
        by_user.setdefault(user, []).append(row)
    apart = _hold_out(sorted(by_user), held_out, seed)
    train: list[PairRow] = []
    others: list[PairRow] = []
    n_without = 0
    for user, own in by_user.items():
        kept = _put_examples(own, n_examples, seed=f"{seed}/{user}")
        n_without += len(own) - len(kept)
        (others if user in apart else train).extend(kept)
    if not train and not others:
        raise DataError(
            f"no user has more than {n_examples} rows of different prompts (needs one more than "
            "examples); lower --examples"
        )
    if (held_out > 0 and not others) or (held_out < 1 and not train):
        raise DataError(
            f"with a share of {held_out:g} of {len(by_user)} users held out no row is left to "
            f"{'hold out' if train else 'train on'} (needs users with enough rows on both sides); "
            "change --held-out, 0 for nobody"
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


def _put_examples(rows: Sequence[PairRow], n_examples: int, *, seed: str) -> list[PairRow]:
    """Return the rows of one user that have enough others, with those before their prompts."""
    prompts = [as_text(row.prompt) for row in rows]
    found = []
    for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        # A choice on the same prompt would give the answer away.
        known = [other for other, asked in zip(rows, prompts, strict=True) if asked != prompt]
        if len(known) >= n_examples:
            examples = random.Random(f"{seed}/{index}").sample(known, n_examples)
            found.append(replace(row, prompt=render(examples, prompt)))
    return found


def _hold_out(users: Sequence[str], share: float, seed: int) -> set[str]:
    n = round(share * len(users))
    return set(random.Random(f"{seed}/held out").sample(list(users), n))
