"""Read the texts of a row: replies, prompts that they share or not, and numbers for both sides.

Parts of `records`, which has the kinds of rows; problems are noted in the `Fields` being read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trillium.fields import Fields, Text, as_float, is_number

# What a pair may bring along: a response of its own each, with `NAME_prompt` where that differs.
_FURTHER = ("target", "gold", "rationale", "near_scope", "out_of_scope")


@dataclass(frozen=True)
class Reply:
    """Hold a prompt and what was written in answer to it."""

    prompt: Text
    completion: Text


def split_prompt(fields: Fields, chosen: Text, rejected: Text) -> tuple[Text, Text, Text]:
    """Split off the common start, as TRL's extract_prompt does, leaving each reply a message."""
    is_text = isinstance(chosen, str)
    limit = min(len(chosen), len(rejected)) - (0 if is_text else 1)
    size = next((i for i in range(limit) if chosen[i] != rejected[i]), limit)
    if is_text and size and chosen[size - 1] == " ":
        size -= 1
    if not size:
        fields.complain(
            'field "prompt" is missing and "chosen" and "rejected" share no start (needs prompt, '
            "chosen, rejected); drop the line or add the field"
        )
    return chosen[:size], chosen[size:], rejected[size:]


def check_reply(fields: Fields, name: str, text: Text, prompt: Text) -> None:
    """Note a reply of another kind than its prompt, or without a message of the assistant."""
    if isinstance(text, str) or fields.problems:
        return
    if isinstance(prompt, str):
        fields.complain(
            f'fields "prompt" and "{name}" are a string and a conversation (needs twice the same '
            "kind); correct the line"
        )
    if not any(message.role == "assistant" for message in text):
        fields.complain(
            f'field "{name}" has no assistant message (needs at least one); drop the line or add '
            "the reply"
        )


def read_text(fields: Fields, name: str, prompt: Text) -> Text | None:
    """Read a prompt that is optional; it must be of the kind that the row's own prompt is."""
    if not _is_text(fields.record.get(name)):
        return None
    text = fields.text(name)
    if isinstance(text, str) != isinstance(prompt, str):
        fields.complain(
            f'fields "prompt" and "{name}" are a string and a conversation (needs twice the same '
            "kind); correct the line"
        )
    return text


def read_further(fields: Fields, prompt: Text) -> dict[str, Reply]:
    """Read the responses beside a pair that are there."""
    found = {}
    for name in _FURTHER:
        if _is_text(fields.record.get(name)):
            own = read_text(fields, f"{name}_prompt", prompt)
            reply = Reply(prompt if own is None else own, fields.text(name))
            check_reply(fields, name, reply.completion, reply.prompt)
            found[name] = reply
    return found


def _is_text(value: object) -> bool:
    """Tell a string or conversation from what else a file may hold under a name of ours."""
    if isinstance(value, str):
        return True
    if isinstance(value, bytes) or not isinstance(value, Sequence):
        return False
    return len(value) > 0 and all(isinstance(entry, Mapping) for entry in value)


def label_fields(name: str) -> tuple[str, ...]:
    """Return the fields that hold one number for each side of a pair."""
    return (f"chosen_{name}", f"rejected_{name}", f"{name}_chosen", f"{name}_rejected")


def pair_labels(record: Mapping[str, object]) -> dict[str, tuple[float, ...]]:
    """Return the numbers that a record has for both sides, by name."""
    labels = {}
    for key in record:
        name = key.removeprefix("chosen_").removesuffix("_chosen")
        before = (record.get(f"chosen_{name}"), record.get(f"rejected_{name}"))
        after = (record.get(f"{name}_chosen"), record.get(f"{name}_rejected"))
        for values in (before, after):
            if name != key and all(is_number(value) for value in values):
                labels[name] = tuple(as_float(value) for value in values)
    return labels
