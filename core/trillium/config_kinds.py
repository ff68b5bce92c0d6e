"""Sections of a run file that come in kinds, told apart by a key such as `name`.

An override of that key may name another kind than the file does. What the file gave to its own kind
is then left out: a number that was chosen for one formula would count in another.
"""

import inspect
import json
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from trillium.yamlfile import KeyPath

COMMAND_LINE = "command line"
Models = list[type[BaseModel]]


@dataclass(frozen=True)
class Origins:
    """Where every key came from: `<file>:<line>`, or the command line."""

    file: str
    places: dict[KeyPath, str]

    def is_of_file(self, key: KeyPath) -> bool:
        """Tell whether the file gave a key, and no override replaced it since."""
        return self.places.get(key, COMMAND_LINE) != COMMAND_LINE

    def has_override(self, key: KeyPath) -> bool:
        """Tell whether a key, or one below it, came by override."""
        return any(
            place == COMMAND_LINE and known[: len(key)] == key
            for known, place in self.places.items()
        )


def models_of(annotation: object) -> Models:
    """Return the models that a field may hold, itself or in a list or mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Annotated, Union, types.UnionType, list, tuple, dict):
        return [model for inner in get_args(annotation) for model in models_of(inner)]
    return []


def choose(models: Models, value: object) -> Models:
    """Keep the models whose literal fields agree with the value; all of them when none does."""
    if len(models) < 2 or not isinstance(value, dict):
        return models
    fitting = [
        model
        for model in models
        if all(value.get(tag) in allowed for tag, allowed in _tags(model).items())
    ]
    return fitting or models


def kinds(models: Models, tag: str) -> list[str]:
    """Return the kinds that a key tells apart."""
    return [str(kind) for model in models for kind in _tags(model).get(tag, ())]


def fill_kinds(model: type[BaseModel], values: dict[str, object]) -> None:
    """Add the kind of a section that names none, where the model has a default for that section.

    `objective.beta=0.2` alone then means the default objective with another beta.
    """
    for name, field in model.model_fields.items():
        section = values.get(name)
        if not isinstance(section, dict):
            continue
        models = models_of(field.annotation)
        default = field.get_default(call_default_factory=True, validated_data={})
        if len(models) > 1 and isinstance(default, BaseModel):
            for tag in _tags(type(default)):
                section.setdefault(tag, getattr(default, tag))
        for chosen in choose(models, section):
            fill_kinds(chosen, section)


def leave_out(
    models: Models, before: object, values: object, origins: Origins, key: KeyPath = ()
) -> Iterator[str]:
    """Remove from `values` what the file gave to kinds that overrides replaced, and say what.

    `before` is what the file holds, with its kinds filled in. What both kinds inherit from one
    class stays, and so do, where both have the same, a path, a key that neither has a default for,
    and a section of one model, such as `train` of two methods. A number, or a choice among kinds,
    belongs to the kind that it was written for.
    """
    if isinstance(before, list) and isinstance(values, list):
        for index, (old, new) in enumerate(zip(before, values, strict=False)):
            yield from leave_out(models, old, new, origins, (*key, index))
    if not isinstance(before, dict) or not isinstance(values, dict):
        return
    then, now = choose(models, before), choose(models, values)
    if len(then) == len(now) == 1 and then != now:
        yield from _leave_out_of(then[0], now[0], values, origins, key)
    for model in now:
        for name, field in model.model_fields.items():
            inner = models_of(field.annotation)
            if inner and name in before and name in values:
                yield from leave_out(inner, before[name], values[name], origins, (*key, name))


def _leave_out_of(
    then: type[BaseModel],
    now: type[BaseModel],
    values: dict[str, object],
    origins: Origins,
    key: KeyPath,
) -> Iterator[str]:
    left = [
        _written(name, value)
        for name, value in list(values.items())
        if name not in _tags(now)
        and not _is_same(name, then, now)
        and _remove(values, name, origins, (*key, name))
    ]
    if left:
        tag, (kind,) = next(iter(_tags(now).items()))
        name = ".".join(map(str, (*key, tag)))
        owner = kinds([then], tag)[0]
        are = "is" if len(left) == 1 else "are"
        yield (
            f"{name}={kind}: {', '.join(left)} of {origins.file} belonged to {owner} and {are} "
            "left out"
        )


def _is_same(name: str, then: type[BaseModel], now: type[BaseModel]) -> bool:
    """Tell whether a key means the same to two kinds."""
    if name not in then.model_fields or name not in now.model_fields:
        return False
    first, second = (
        next(one for one in model.__mro__ if name in inspect.get_annotations(one))
        for model in (then, now)
    )
    fields = [model.model_fields[name] for model in (then, now)]
    mine, other = (field.annotation for field in fields)
    is_plain = all(field.is_required() for field in fields) or Path in (mine, *get_args(mine))
    return first is second or (mine == other and (is_plain or len(models_of(mine)) == 1))


def _remove(node: dict[str, object], name: str, origins: Origins, key: KeyPath) -> bool:
    """Remove what the file gave below a key and return if there was any; overrides stay."""
    if not origins.is_of_file(key):
        return False
    if not origins.has_override(key):
        del node[name]
        for known in [known for known in origins.places if known[: len(key)] == key]:
            del origins.places[known]
        return True
    value = node[name]
    if not isinstance(value, dict):
        return False
    removed = [_remove(value, part, origins, (*key, part)) for part in list(value)]
    return any(removed)


def _written(name: str, value: object) -> str:
    if isinstance(value, dict | list):
        return name
    return f"{name}={value if isinstance(value, str) else json.dumps(value)}"


def _tags(model: type[BaseModel]) -> dict[str, tuple[object, ...]]:
    """Return the fields that can have one value only: they tell the kinds of a section apart."""
    return {
        name: get_args(field.annotation)
        for name, field in model.model_fields.items()
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
    }
