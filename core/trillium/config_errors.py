"""What pydantic found wrong, as sentences about the keys that the user wrote.

Pydantic puts the branch of a union into the location of an error (`objective.simpo.gamma`); the
walk here follows the user's values and the model together and leaves such parts out.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from trillium.config_kinds import Models, choose, kinds, models_of
from trillium.yamlfile import KeyPath


@dataclass(frozen=True)
class _Place:
    """Where an error is: the key path as the user wrote it, and the models around it."""

    key: KeyPath
    section: Models
    models: Models

    @property
    def name(self) -> str:
        return ".".join(map(str, self.key))


def describe_errors(
    error: ValidationError,
    model: type[BaseModel],
    values: dict[str, object],
    places: dict[KeyPath, str],
    default_place: str,
) -> list[str]:
    """Return one sentence per mistake: `<file:line>: <key> = <value>: <what is wrong>`."""
    known = [".".join(key) for key in _known_keys(model, values)]
    sentences = []
    found = error.errors(include_url=False)
    for details in found:
        if details["type"] == "too_short" and any(_is_below(other, details) for other in found):
            continue  # entries that were refused are not counted
        place = _locate(model, values, details["loc"])
        tag = _tag_of(details)
        where = _find_line(places, (*place.key, tag) if tag else place.key) or default_place
        sentence = f"{where}: {_describe(details, place, known)}"
        if sentence not in sentences:
            sentences.append(sentence)
    return sentences


def _describe(details: ErrorDetails, place: _Place, known: list[str]) -> str:
    kind = details["type"]
    value = details["input"]
    shown = "" if isinstance(value, dict | list | BaseModel) else f" = {value!r}"
    context = details.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{place.name}{shown}: unknown key{_nearest_key(place, known)}"
    if kind == "missing":
        name = ".".join([place.name, *_first_required(place.models)])
        return f"{name}: is missing{_description(place)}; add it"
    if kind == "union_tag_invalid":
        expected = str(context.get("expected_tags", ""))
        choices = [choice.strip("' ") for choice in expected.split(",")]
        chosen = str(context.get("tag", ""))
        tag = _tag_of(details)
        return f"{place.name}.{tag} = {chosen!r}: unknown{_nearest(chosen, choices)}"
    if kind == "union_tag_not_found":
        tag = _tag_of(details)
        return f"{place.name}.{tag}: is missing ({_listed(kinds(place.models, tag))}); add it"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return _describe_no_section(value, place)
    if kind == "too_short":
        return f"{place.name}: is empty (needs at least {context.get('min_length')}); add an entry"
    if kind == "path_type":
        return f"{place.name}{shown}: must be a path"
    if kind == "string_pattern_mismatch":
        return f"{place.name}{shown}: does not fit{_description(place)}; correct it"
    message = details["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message.replace("Input should be", "must be").replace("Input should", "must")
    if kind == "literal_error" and isinstance(value, str):
        choices = [choice.strip("' ") for choice in message.split("must be ")[-1].split(",")]
        choices = [part.strip("' ") for choice in choices for part in choice.split(" or ")]
        close = difflib.get_close_matches(value, choices, n=1)
        message += f"; did you mean {close[0]}?" if close else ""
    return f"{place.name}{shown}: {message}" if place.key else message


def _is_below(one: ErrorDetails, other: ErrorDetails) -> bool:
    size = len(other["loc"])
    return len(one["loc"]) > size and one["loc"][:size] == other["loc"]


def _describe_no_section(value: object, place: _Place) -> str:
    """Say what a section is made of to someone who wrote a single value, or nothing, for it."""
    if isinstance(value, str) and value in kinds(place.models, "name"):
        return f"{place.name} = {value!r}: must be a section; write {place.name}.name={value}"
    keys = _listed(sorted({name for model in place.models for name in model.model_fields}))
    if value is None:
        return f"{place.name}: is empty; give it keys ({keys}), or remove it"
    shown = "" if isinstance(value, dict | list) else f" = {value!r}"
    return f"{place.name}{shown}: must be a section with keys ({keys})"


def _tag_of(details: ErrorDetails) -> str:
    """Return the key that chooses between the kinds of a section; empty for other mistakes."""
    if not details["type"].startswith("union_tag"):
        return ""
    return str(details.get("ctx", {}).get("discriminator", "name")).strip("'")


def _first_required(models: Models) -> list[str]:
    """Return the path to the first key that a missing section cannot do without."""
    for name, field in models[0].model_fields.items() if len(models) == 1 else ():
        if field.is_required():
            return [name, *_first_required(models_of(field.annotation))]
    return []


def _locate(model: type[BaseModel], values: object, location: tuple[int | str, ...]) -> _Place:
    key: KeyPath = ()
    section: Models = []
    models: Models = [model]
    node = values
    for part in location:
        if isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
            models = choose(models, node)
        elif isinstance(node, dict) and (part in node or _fields(models, part)):
            section = models
            annotations = _fields(models, part)
            node = node.get(part)
            models = choose([m for a in annotations for m in models_of(a)], node)
        else:
            continue  # the branch of a union or the name of a validator: not a key
        key = (*key, part)
    return _Place(key, section, models)


def _known_keys(model: type[BaseModel], values: object) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (name,)
        inner = values.get(name) if isinstance(values, dict) else None
        for chosen in choose(models_of(field.annotation), inner):
            for below in _known_keys(chosen, inner):
                yield (name, *below)


def _nearest_key(place: _Place, known: list[str]) -> str:
    *parents, leaf = map(str, place.key)
    siblings = [name for model in place.section for name in model.model_fields]
    close = difflib.get_close_matches(leaf, siblings, n=1)
    if close:
        return f"; did you mean {'.'.join([*parents, close[0]])}?"
    # Keys of the same section, or one around it, share most of the path whatever they are called.
    others = [key for key in known if key.split(".")[:-1] != parents[: key.count(".")]]
    elsewhere = [key for key in known if key.split(".")[-1] == leaf]
    elsewhere = elsewhere or difflib.get_close_matches(place.name, others, n=1, cutoff=0.75)
    if elsewhere:
        return f"; did you mean {elsewhere[0]}?"
    return f" ({'.'.join(parents) or 'the file'} takes {_listed(siblings)}); remove it"


def _nearest(word: str, choices: list[str]) -> str:
    close = difflib.get_close_matches(word.lower(), choices, n=1)
    return f"; did you mean {close[0]}?" if close else f" (one of {_listed(choices)})"


def _description(place: _Place) -> str:
    texts = {
        model.model_fields[str(place.key[-1])].description
        for model in place.section
        if place.key and str(place.key[-1]) in model.model_fields
    }
    text = next((text for text in texts if text), None)
    return f" ({text.rstrip('.')})" if text else ""


def _find_line(places: dict[KeyPath, str], key: KeyPath) -> str | None:
    for length in range(len(key), 0, -1):
        if key[:length] in places:
            return places[key[:length]]
    return None


def _fields(models: Models, part: int | str) -> list[object]:
    return [m.model_fields[part].annotation for m in models if part in m.model_fields]


def _listed(words: list[str]) -> str:
    return ", ".join(words)
