"""Rows of preference data, as they stand on disk: pairs, labels, rankings and trajectories.

The formats of TRL data sets are read as they are, plain and conversational. A row checks itself
when it is read and keeps an id, which is a hash of its content when the file gives none. Nothing
here knows tokens; `tokenize` turns rows into trees, `rowfiles` reads and writes files, and
`search_records` has the rows that are trees themselves.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from trillium.fields import Fields, Message, Text
from trillium.problems import Place
from trillium.record_texts import (
    Reply,
    check_reply,
    label_fields,
    pair_labels,
    read_further,
    read_text,
    split_prompt,
)

# On disk a ranking's labels are plural, in a tree they are named for one path.
RANKING_LABELS = {"rewards": "reward", "ranks": "rank", "labels": "label"}


@dataclass(frozen=True, kw_only=True)
class Row(ABC):
    """Hold what every kind of row has.

    `columns` are the numeric fields of a row that its kind does not name (margin, weight, ...).
    `tools` and `template_kwargs` go to the chat template. `where` says in messages which line of
    which file the row is; it is no part of the row.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    id: str = ""
    columns: Mapping[str, float] = field(default_factory=dict)
    tools: tuple[Mapping[str, object], ...] = ()
    template_kwargs: Mapping[str, object] = field(default_factory=dict)
    where: Place | None = field(default=None, compare=False, repr=False)

    @property
    def place(self) -> Place:
        """Return where the row stands, or its id when it comes from no file."""
        return self.where or Place("row ", self.id)

    def __post_init__(self) -> None:
        """Name the row by its content when it came without an id."""
        if not self.id:
            content = json.dumps(self.to_record(), sort_keys=True, default=str)
            object.__setattr__(self, "id", hashlib.sha256(content.encode()).hexdigest()[:16])

    @classmethod
    @abstractmethod
    def from_record(cls, fields: Fields) -> "Row":
        """Read a row; problems are noted in `fields`."""

    def to_record(self) -> dict[str, object]:
        """Return the row as it stands in a file."""
        record: dict[str, object] = {"id": self.id, **self._own_record(), **self.columns}
        if self.tools:
            record["tools"] = list(self.tools)
        if self.template_kwargs:
            record["chat_template_kwargs"] = dict(self.template_kwargs)
        return record

    @abstractmethod
    def _own_record(self) -> dict[str, object]:
        """Return the fields that this kind of row adds."""


@dataclass(frozen=True, kw_only=True)
class PairRow(Row):
    """Hold a chosen and a rejected response to one prompt.

    A prompt that is missing is the common start of the two conversations or strings. Numeric fields
    `chosen_X` and `rejected_X` (or `X_chosen` and `X_rejected`) become the label X. The rejected
    response may answer another prompt, `rejected_prompt`; `further` are responses beside the pair.
    """

    needs: ClassVar[tuple[str, ...]] = ("prompt", "chosen", "rejected")

    prompt: Text
    chosen: Text
    rejected: Text
    labels: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    rejected_prompt: Text | None = None
    further: Mapping[str, Reply] = field(default_factory=dict)

    @classmethod
    def from_record(cls, fields: Fields) -> "PairRow":
        """Read a pair with an explicit or implicit prompt."""
        chosen, rejected = fields.text("chosen"), fields.text("rejected")
        if not fields.problems and isinstance(chosen, str) != isinstance(rejected, str):
            fields.complain(
                'fields "chosen" and "rejected" are a string and a conversation (needs twice the '
                "same kind); correct the line"
            )
        prompt: Text = ""
        if fields.problems:
            pass
        elif not fields.has("prompt") or (
            isinstance(fields.record["prompt"], str) and not isinstance(chosen, str)
        ):
            prompt, chosen, rejected = split_prompt(fields, chosen, rejected)
        else:
            prompt = fields.text("prompt")
            size = len(prompt)
            if (
                prompt
                and prompt == chosen[:size] == rejected[:size]
                and not isinstance(prompt, str)
            ):
                chosen, rejected = chosen[size:], rejected[size:]
        for name, text in (("chosen", chosen), ("rejected", rejected)):
            check_reply(fields, name, text, prompt)
        labels = pair_labels(fields.record)
        spare = {f for name in labels for f in label_fields(name)}
        return cls(
            prompt=prompt,
            chosen=chosen,
            rejected=rejected,
            labels=labels,
            rejected_prompt=read_text(fields, "rejected_prompt", prompt),
            further=read_further(fields, prompt),
            id=fields.row_id(),
            columns=fields.columns({*cls.needs, *spare}),
            tools=fields.tools(),
            template_kwargs=fields.mapping("chat_template_kwargs"),
        )

    def _own_record(self) -> dict[str, object]:
        record: dict[str, object] = {
            "prompt": text_to_json(self.prompt),
            "chosen": text_to_json(self.chosen),
            "rejected": text_to_json(self.rejected),
        }
        for name, (chosen, rejected) in self.labels.items():
            record[f"chosen_{name}"], record[f"rejected_{name}"] = chosen, rejected
        if self.rejected_prompt is not None:
            record["rejected_prompt"] = text_to_json(self.rejected_prompt)
        for name, reply in self.further.items():
            record[name] = text_to_json(reply.completion)
            if reply.prompt != self.prompt:
                record[f"{name}_prompt"] = text_to_json(reply.prompt)
        return record


@dataclass(frozen=True, kw_only=True)
class CompletionRow(Row):
    """Hold one response without a verdict, as supervised data has them."""

    needs: ClassVar[tuple[str, ...]] = ("prompt", "completion")

    prompt: Text
    completion: Text

    @classmethod
    def from_record(cls, fields: Fields) -> "CompletionRow":
        """Read a response."""
        prompt, completion = fields.text("prompt"), fields.text("completion")
        check_reply(fields, "completion", completion, prompt)
        return cls(
            prompt=prompt,
            completion=completion,
            id=fields.row_id(),
            columns=fields.columns(set(cls.needs)),
            tools=fields.tools(),
            template_kwargs=fields.mapping("chat_template_kwargs"),
        )

    def _own_record(self) -> dict[str, object]:
        return {
            "prompt": text_to_json(self.prompt),
            "completion": text_to_json(self.completion),
        }


@dataclass(frozen=True, kw_only=True)
class LabelledRow(Row):
    """Hold one response and whether it is desirable (KTO); any number can be a label."""

    needs: ClassVar[tuple[str, ...]] = ("prompt", "completion", "label")

    prompt: Text
    completion: Text
    label: float

    @classmethod
    def from_record(cls, fields: Fields) -> "LabelledRow":
        """Read a labelled response."""
        prompt, completion = fields.text("prompt"), fields.text("completion")
        check_reply(fields, "completion", completion, prompt)
        return cls(
            prompt=prompt,
            completion=completion,
            label=fields.number("label"),
            id=fields.row_id(),
            columns=fields.columns(set(cls.needs)),
            tools=fields.tools(),
            template_kwargs=fields.mapping("chat_template_kwargs"),
        )

    def _own_record(self) -> dict[str, object]:
        return {
            "prompt": text_to_json(self.prompt),
            "completion": text_to_json(self.completion),
            "label": self.label,
        }


@dataclass(frozen=True, kw_only=True)
class RankingRow(Row):
    """Hold several responses to one prompt with `rewards` (higher is better), `ranks` or `labels`.

    At least one of the three; a label says in [0, 1] how good a response is.
    """

    needs: ClassVar[tuple[str, ...]] = ("prompt", "completions", "rewards or ranks")

    prompt: Text
    completions: tuple[Text, ...]
    labels: Mapping[str, tuple[float, ...]]

    @classmethod
    def from_record(cls, fields: Fields) -> "RankingRow":
        """Read a ranking."""
        prompt, completions = fields.text("prompt"), fields.texts("completions")
        for index, completion in enumerate(completions):
            check_reply(fields, f"completions[{index}]", completion, prompt)
        given = [name for name in RANKING_LABELS if fields.has(name)]
        if not given:
            fields.missing("rewards")
        return cls(
            prompt=prompt,
            completions=completions,
            labels={RANKING_LABELS[n]: fields.numbers(n, len(completions)) for n in given},
            id=fields.row_id(),
            columns=fields.columns({*cls.needs, *RANKING_LABELS}),
            tools=fields.tools(),
            template_kwargs=fields.mapping("chat_template_kwargs"),
        )

    def _own_record(self) -> dict[str, object]:
        record: dict[str, object] = {
            "prompt": text_to_json(self.prompt),
            "completions": [text_to_json(completion) for completion in self.completions],
        }
        plural = {singular: name for name, singular in RANKING_LABELS.items()}
        record.update({plural[name]: list(values) for name, values in self.labels.items()})
        return record


@dataclass(frozen=True, kw_only=True)
class TrajectoryRow(Row):
    """Hold one conversation with tools, and the reward its end earned when it is known."""

    needs: ClassVar[tuple[str, ...]] = ("messages",)

    messages: tuple[Message, ...]
    reward: float | None = None

    @classmethod
    def from_record(cls, fields: Fields) -> "TrajectoryRow":
        """Read a trajectory."""
        messages = fields.messages("messages")
        check_reply(fields, "messages", messages, messages)
        return cls(
            messages=messages,
            reward=fields.number("reward") if fields.has("reward") else None,
            id=fields.row_id(),
            columns=fields.columns({*cls.needs, "reward"}),
            tools=fields.tools(),
            template_kwargs=fields.mapping("chat_template_kwargs"),
        )

    def _own_record(self) -> dict[str, object]:
        record: dict[str, object] = {"messages": text_to_json(self.messages)}
        return record if self.reward is None else {**record, "reward": self.reward}


def text_to_json(text: Text) -> object:
    """Return a string as it is and a conversation as a list of records."""
    return text if isinstance(text, str) else [message.to_record() for message in text]
