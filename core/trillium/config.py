"""Run files: YAML plus `key.path=value` overrides, validated against a frozen pydantic model.

Every mistake is reported at once, with its line and the nearest right key. `find_run_file` also
knows the presets that are shipped inside the packages.
"""

import copy
import json
import logging
import math
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, ValidationError

from trillium.config_errors import describe_errors
from trillium.config_kinds import COMMAND_LINE, Origins, fill_kinds, leave_out
from trillium.errors import ConfigError
from trillium.yamlfile import KeyPath, dump_yaml, parse_yaml, read_yaml

C = TypeVar("C", bound=BaseModel)

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""A seed that every generator takes; NumPy's takes 32 bits."""

log = logging.getLogger(__name__)

_PRESET = "preset:"


def load_config(model: type[C], path: Path | None, overrides: Sequence[str] = ()) -> C:
    """Read `path`, apply the overrides in order, and return a valid `model`.

    An override such as `objective.name` that chooses another kind than the file leaves out what the
    file gave to its own kind, and logs what that was.
    Raises ConfigError that lists every mistake: syntax, duplicate and unknown keys, missing keys,
    wrong types, values out of bounds, overrides that lead nowhere.
    """
    values: object = {}
    places: dict[KeyPath, str] = {}
    problems: list[str] = []
    if path is not None:
        source = read_yaml(path)
        values = {} if source.values is None else source.values
        places = {key: f"{path}:{line}" for key, line in source.lines.items()}
        problems = [f"{path}:{line}: {text}" for line, text in source.problems]
    title = f"{path or COMMAND_LINE} is not a valid {model.__name__}"
    if not isinstance(values, dict):
        raise ConfigError(f"{title}:\n  {path}: holds {values!r}; it must hold keys with values")
    before = copy.deepcopy(values)
    fill_kinds(model, before)
    for override in overrides:
        problem = _apply(values, places, override)
        if problem is not None:
            problems.append(f"{COMMAND_LINE}: {problem}")
    if path is not None:
        for sentence in leave_out([model], before, values, Origins(path.name, places)):
            log.warning(sentence)
    fill_kinds(model, values)
    config: C | None = None
    try:
        config = model.model_validate(values)
    except ValidationError as error:
        problems += describe_errors(error, model, values, places, str(path or COMMAND_LINE))
    if config is not None and not problems:
        # As it was read: "inf" and "nan" are words until then.
        problems = [
            f"{places.get(key, path or COMMAND_LINE)}: {'.'.join(map(str, key))} = {value}: "
            "must be a finite number"
            for key, value in _not_finite(config.model_dump(mode="json"), ())
        ]
    if problems or config is None:
        raise ConfigError("\n  ".join([f"{title}:", *problems]))
    return config


def write_override(key: str, value: Path | str) -> str:
    """Return `key=value` that is read back to the same text, whatever it holds."""
    return f"{key}={json.dumps(str(value), ensure_ascii=False)}"


def dump_config(config: BaseModel) -> str:
    """Write a configuration, defaults included, as YAML that `load_config` reads back to it."""
    return dump_yaml(config.model_dump(mode="json"))


def find_run_file(name: str, *, package: str, command: str = "") -> Path:
    """Return the file that `name` means: a path, `preset:NAME`, or the bare name of a preset.

    Presets are `presets/*.yaml` inside `package`, those of another `command` than its first one
    `presets/COMMAND/*.yaml`, so they exist in an installed wheel too. Raises ConfigError with the
    list of presets when nothing fits.
    """
    presets = list_presets(package, command=command)
    if name.startswith(_PRESET):
        preset = presets.get(name.removeprefix(_PRESET))
    else:
        path = Path(name)
        if path.is_file():
            return path
        if path.is_dir():
            known = f", or {_PRESET}{name}" if name in presets else ""
            raise ConfigError(f"{name}: is a folder; give the path of a YAML run file{known}")
        preset = presets.get(name)
    if preset is None:
        known = ", ".join(presets) or "none"
        of = command and f" {command}"
        raise ConfigError(
            f"{name}: no such file or preset (presets of {package}{of}: {known}); "
            "give a path to a YAML file or one of these names"
        )
    return preset


def list_presets(package: str, *, command: str = "") -> dict[str, Path]:
    """Return the presets of a command inside an installed package, by name."""
    folder = Path(str(resources.files(package))) / "presets" / command
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _not_finite(values: object, above: KeyPath) -> Iterator[tuple[KeyPath, float]]:
    """Find the numbers that no setting can honour and no JSON file can hold."""
    if isinstance(values, float) and not math.isfinite(values):
        yield above, values
    inner = values.items() if isinstance(values, dict) else ()
    for key, value in enumerate(values) if isinstance(values, list) else inner:
        yield from _not_finite(value, (*above, key))


def _apply(values: dict[str, object], places: dict[KeyPath, str], override: str) -> str | None:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        return f"{override!r}: is no override (expected key=value, for example train.max_steps=20)"
    try:
        parsed = parse_yaml(text, where=f"{COMMAND_LINE}: {key}")
    except ConfigError:
        return f"{key} = {text!r}: is not a YAML value; quote it"
    if parsed.problems:
        return f"{key}: {parsed.problems[0][1]}"
    if parsed.has_comment:
        return f"{key} = {text!r}: what follows # would be left out as a comment; quote the value"
    node: object = values
    reached: KeyPath = ()
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        step = _step(node, part)
        if step is None:
            return _dead_end(node, reached, key, part)
        reached = (*reached, step)
        if following is None:
            _put(node, step, parsed.values)
            _forget(places, reached)
            places[reached] = COMMAND_LINE
        else:
            node = _enter(node, step)
            places.setdefault(reached, COMMAND_LINE)
    return None


def _step(node: object, part: str) -> str | int | None:
    if isinstance(node, dict):
        return part
    if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
        return int(part)
    return None


def _enter(node: object, step: str | int) -> object:
    if isinstance(node, list):
        return node[int(step)]
    if isinstance(node, dict):
        if node.get(step) is None:
            node[step] = {}
        return node[step]
    return None


def _put(node: object, step: str | int, value: object) -> None:
    if isinstance(node, dict):
        node[step] = value
    elif isinstance(node, list):
        node[int(step)] = value


def _dead_end(node: object, reached: KeyPath, key: str, part: str) -> str:
    name = ".".join(map(str, reached))
    if isinstance(node, list):
        return f"{key}: {name} has {len(node)} entries, so it has no {part!r} (0 is the first)"
    return f"{key}: {name} is {node!r}, a single value with no keys below it"


def _forget(places: dict[KeyPath, str], prefix: KeyPath) -> None:
    for known in [known for known in places if known[: len(prefix)] == prefix]:
        del places[known]
