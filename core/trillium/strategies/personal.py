"""Personal preferences in context (FSPO, Asap7772/fspo): earlier choices before a question.

Rows are split by user, never by row: a user that was trained on says nothing about a new one.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trillium.errors import DataError
from trillium.problems import Problem, describe_problems
from trillium.records import PairRow
from trillium.strategies.asking import as_text

_MAX_SHOWN = 100


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

    In a conversation they stand in its last turn of the user. `held_out` is the share of users that
    are kept apart. Rows of users with too few others are left out and counted. Raises DataError
    when no row is left on a side that has a share, or rows have no one place for choices.
    """
    _check_prompts(rows)
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
            found.append(_with_examples(row, examples))
    return found


def _with_examples(row: PairRow, examples: Sequence[PairRow]) -> PairRow:
    """Return the row with the choices in its prompt, which is that of all its responses."""
    prompt = row.prompt
    if isinstance(prompt, str):
        prompt = render(examples, prompt)
    else:
        last = max(place for place, turn in enumerate(prompt) if turn.role == "user")
        turn = replace(prompt[last], content=render(examples, prompt[last].text))
        prompt = (*prompt[:last], turn, *prompt[last + 1 :])
    further = {name: replace(reply, prompt=prompt) for name, reply in row.further.items()}
    return replace(row, prompt=prompt, further=further)


def _check_prompts(rows: Sequence[PairRow]) -> None:
    """Raise DataError naming the rows that have no one place for choices."""
    problems = [Problem(row.place, what) for row in rows for what in _obstacles(row)]
    if problems:
        raise DataError(describe_problems(problems, max_shown=_MAX_SHOWN))


def _obstacles(row: PairRow) -> list[str]:
    """Return why the choices of a user cannot be put before what this row asks."""
    own = [f"{name}_prompt" for name, reply in row.further.items() if reply.prompt != row.prompt]
    if row.rejected_prompt is not None:
        own.insert(0, "rejected_prompt")
    found = [
        f'field "{name}" is a prompt of its own (needs one prompt for all responses of a row: '
        "choices are put before it); drop the field or the line"
        for name in own
    ]
    if not isinstance(row.prompt, str) and not any(turn.role == "user" for turn in row.prompt):
        found.append(
            'field "prompt" has no turn of the user (needs one: choices are put into the last); '
            "add the question, or drop the line"
        )
    return found


def _hold_out(users: Sequence[str], share: float, seed: int) -> set[str]:
    n = round(share * len(users))
    return set(random.Random(f"{seed}/held out").sample(list(users), n))
