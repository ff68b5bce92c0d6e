"""Read the fields of one untrusted record and remember everything that is wrong with it.

A reader never stops at the first mistake: each accessor notes the problem, returns a harmless
value, and the caller drops the row when `problems` is not empty.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

_ROLE_EXAMPLE = '{"role": "user", "content": "..."}'


@dataclass(frozen=True)
class Message:
    """Hold one chat message; `fields` are the template's own extras (tool_calls, name, ...).

    `scored` chooses by hand what counts in an assistant message when the run scores explicit spans:
    the whole turn, nothing, or character ranges [start, end) of its text.
    """

    role: str
    content: str | list[Mapping[str, object]] | None
    fields: Mapping[str, object] = field(default_factory=dict)
    scored: bool | tuple[tuple[int, int], ...] | None = None

    @property
    def text(self) -> str:
        """Return the content as one string, without the block structure."""
        if isinstance(self.content, str) or self.content is None:
            return self.content or ""
        return "".join(str(block.get("text", "")) for block in self.content)

    def to_record(self) -> dict[str, object]:
        """Return the message as it stands in a file."""
        record = self.to_template()
        if self.scored is not None:
            spans = self.scored if isinstance(self.scored, bool) else list(map(list, self.scored))
            record["scored"] = spans
        return record

    def to_template(self) -> dict[str, object]:
        """Return the message as chat templates expect it."""
        return {"role": self.role, "content": self.content, **self.fields}


Text = str | tuple[Message, ...]


@dataclass
class Fields:
    """Read one record; `needs` names the fields of its kind for the messages."""

    record: Mapping[str, object]
    needs: tuple[str, ...]
    problems: list[str] = field(default_factory=list)

    def complain(self, what: str) -> None:
        """Note one more problem of this record."""
        self.problems.append(what)

    def missing(self, name: str) -> None:
        """Note that a field the kind needs is not there."""
        needs = ", ".join(self.needs)
        self.complain(f'field "{name}" is missing (needs {needs}); drop the line or add the field')

    def has(self, name: str) -> bool:
        """Tell whether the field is there and not null."""
        return self.record.get(name) is not None

    def text(self, name: str) -> Text:
        """Read a string or a list of chat messages."""
        value = self.record.get(name)
        if value is None:
            self.missing(name)
            return ""
        if isinstance(value, str):
            return value
        if isinstance(value, Sequence) and not isinstance(value, bytes) and value:
            return self.messages(name)
        self.complain(
            f'field "{name}" is {_show(value)} (needs a string or a non-empty list of messages); '
            "correct the line"
        )
        return ""

    def texts(self, name: str) -> tuple[Text, ...]:
        """Read a non-empty list whose entries are strings or lists of chat messages."""
        value = self.record.get(name)
        if value is None:
            self.missing(name)
            return ()
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            self.complain(
                f'field "{name}" is {_show(value)} (needs a non-empty list of responses); '
                "correct the line"
            )
            return ()
        texts = []
        for index, entry in enumerate(value):
            inner = Fields({f"{name}[{index}]": entry}, self.needs, self.problems)
            texts.append(inner.text(f"{name}[{index}]"))
        return tuple(texts)

    def messages(self, name: str) -> tuple[Message, ...]:
        """Read a non-empty list of chat messages."""
        value = self.record.get(name)
        if value is None:
            self.missing(name)
            return ()
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            self.complain(
                f'field "{name}" is {_show(value)} (needs a non-empty list of messages like '
                f"{_ROLE_EXAMPLE}); correct the line"
            )
            return ()
        return tuple(self._message(f"{name}[{i}]", entry) for i, entry in enumerate(value))

    def number(self, name: str) -> float:
        """Read a finite number; true and false count as 1 and 0."""
        value = self.record.get(name)
        if value is None:
            self.missing(name)
        elif not is_number(value):
            self.complain(
                f'field "{name}" is {_show(value)} (needs a finite number); correct the line'
            )
        else:
            return as_float(value)
        return 0.0

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """Read a list of `count` finite numbers."""
        value = self.record.get(name)
        entries = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
        if len(entries) == count and all(is_number(entry) for entry in entries):
            return tuple(as_float(entry) for entry in entries)
        self.complain(
            f'field "{name}" is {_show(value)} (needs a list of {count} finite numbers, one per '
            "response); correct the line"
        )
        return (0.0,) * count

    def row_id(self) -> str:
        """Read the optional id, a string or an integer; empty when there is none."""
        value = self.record.get("id")
        if value is not None and not isinstance(value, str | int):
            self.complain(
                f'field "id" is {_show(value)} (needs a string or an integer); correct the line'
            )
        return "" if value is None else str(value)

    def columns(self, taken: set[str]) -> dict[str, float]:
        """Read every number of the record that no named field has taken."""
        rest = self.record.keys() - taken - {"id", "tools", "chat_template_kwargs"}
        names = [name for name in self.record if name in rest]
        return {
            name: self.number(name) for name in names if isinstance(self.record[name], int | float)
        }

    def tools(self) -> tuple[Mapping[str, object], ...]:
        """Read the tool schemas: a list of objects, or the same as a JSON string."""
        value = self.record.get("tools")
        if isinstance(value, str):
            try:
                value = json.loads(value) if value else []
            except json.JSONDecodeError as error:
                self.complain(f'field "tools" is not JSON ({error}); correct the line')
                return ()
        if not value:
            return ()
        if isinstance(value, Sequence) and all(isinstance(entry, Mapping) for entry in value):
            return tuple(value)
        self.complain(
            f'field "tools" is {_show(value)} (needs a list of schemas); correct the line'
        )
        return ()

    def mapping(self, name: str) -> Mapping[str, object]:
        """Read an optional object."""
        value = self.record.get(name)
        if value is None:
            return {}
        if isinstance(value, Mapping):
            return value
        self.complain(f'field "{name}" is {_show(value)} (needs an object); correct the line')
        return {}

    def _message(self, where: str, value: object) -> Message:
        if not isinstance(value, Mapping) or not isinstance(value.get("role"), str):
            self.complain(
                f'field "{where}" is {_show(value)} (needs a message like {_ROLE_EXAMPLE}); '
                "correct the line"
            )
            return Message("user", "")
        content = value.get("content")
        is_blocks = isinstance(content, list) and all(_is_text_block(block) for block in content)
        if not (isinstance(content, str) or is_blocks or (content is None and len(value) > 1)):
            self.complain(
                f'field "{where}.content" is {_show(content)} (needs a string or text blocks); '
                "correct the line"
            )
            return Message("user", "")
        calls = value.get("tool_calls")
        if calls is not None and not (isinstance(calls, list) and all(map(_is_call, calls))):
            self.complain(
                f'field "{where}.tool_calls" is {_show(calls)} (needs a list of objects with a '
                "function name); correct the line"
            )
        own = ("role", "content", "scored")
        fields = {key: entry for key, entry in value.items() if key not in own}
        message = Message(str(value["role"]), content, fields)
        scored = self._spans(f"{where}.scored", value.get("scored"), len(message.text))
        return replace(message, scored=scored)

    def _spans(
        self, where: str, value: object, n_characters: int
    ) -> bool | tuple[tuple[int, int], ...] | None:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Sequence) and all(_is_span(span, n_characters) for span in value):
            return tuple((span[0], span[1]) for span in value)
        self.complain(
            f'field "{where}" is {_show(value)} (needs true, false or [[start, end], ...] within '
            f"its {n_characters} characters); correct the line"
        )
        return None


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number or a boolean."""
    # NaN compares false; an integer too large for a float compares exactly.
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def as_float(value: object) -> float:
    """Return a number that `is_number` accepted as a float."""
    assert isinstance(value, int | float)
    return float(value)


def _is_text_block(value: object) -> bool:
    return isinstance(value, Mapping) and value.get("type") == "text" and "text" in value


def _is_call(value: object) -> bool:
    """Tell whether a value is a tool call, with or without the `function` around its name."""
    function = value.get("function", value) if isinstance(value, Mapping) else None
    return isinstance(function, Mapping) and isinstance(function.get("name"), str)


def _is_span(value: object, n_characters: int) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) == 2
        and all(type(end) is int for end in value)
        and 0 <= value[0] < value[1] <= n_characters
    )


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
