"""YAML as plain values plus the line of every key.

Scalars follow YAML 1.2: `1e-5` is a number, `no` and `12:30` are text. Mistakes that a YAML library
passes over, duplicate keys above all, are collected instead of raised, so that all show at once.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from trillium.errors import ConfigError

KeyPath = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    pass


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


_SCALARS = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*\.[0-9_]*)([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)
for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {}
    for _tag, _pattern, _first in _SCALARS:
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}",
            re.compile(f"^({_pattern})$"),
            ["" if character == "\0" else character for character in _first],
        )


@dataclass
class YamlText:
    """Values read from YAML; `lines` maps each key path to its line, `problems` holds mistakes.

    `has_comment` says that text follows the values.
    """

    values: object = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)
    has_comment: bool = False


def read_yaml(path: Path) -> YamlText:
    """Read a YAML file; raises ConfigError with file and line when it cannot be parsed at all."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); give the path of a YAML run file"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    return parse_yaml(text, where=str(path))


def parse_yaml(text: str, *, where: str) -> YamlText:
    """Parse YAML text; raises ConfigError that names `where` and the line on a syntax error."""
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            parsed = YamlText()
            if root is not None:
                parsed.values = _build(loader, root, (), parsed, ())
            end = 0 if root is None else root.end_mark.index
            parsed.has_comment = bool(text[end:].strip())
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{where}:{line}: has an unprintable character; remove it") from None
    except RecursionError:
        raise ConfigError(f"{where}: is nested too deeply; write it flatter") from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax_error(error, where)) from None
    return parsed


def dump_yaml(values: object) -> str:
    """Write plain values as YAML that `parse_yaml` reads back to the same values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _build(
    loader: _Loader, node: yaml.Node, path: KeyPath, parsed: YamlText, above: tuple[yaml.Node, ...]
) -> object:
    if node in above:
        line = node.start_mark.line + 1
        parsed.problems.append((line, "an anchor contains itself; write it out"))
        return None
    parsed.lines.setdefault(path, node.start_mark.line + 1)
    above = (*above, node)
    if isinstance(node, yaml.SequenceNode):
        return [
            _build(loader, child, (*path, i), parsed, above) for i, child in enumerate(node.value)
        ]
    if not isinstance(node, yaml.MappingNode):
        return _scalar(loader, node, parsed)
    mapping: dict[str, object] = {}
    for key_node, child in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            parsed.problems.append((line, "a key must be a plain word"))
            continue
        key = key_node.value
        if key in mapping:
            first = parsed.lines[(*path, key)]
            name = ".".join(map(str, (*path, key)))
            parsed.problems.append(
                (line, f"{name}: is already set in line {first}; keep one of them")
            )
            continue
        parsed.lines[(*path, key)] = line
        mapping[key] = _build(loader, child, (*path, key), parsed, above)
    return mapping


def _scalar(loader: _Loader, node: yaml.Node, parsed: YamlText) -> object:
    try:
        value: object = loader.construct_object(node)
    except (ValueError, KeyError, AttributeError, IndexError):
        kind, shown = node.tag.rpartition(":")[2], str(node.value)
        shown = shown if len(shown) <= 40 else f"{shown[:20]}... of {len(shown):,} characters"
        line = node.start_mark.line + 1
        parsed.problems.append((line, f"{shown!r} cannot be read as {kind}; quote or correct it"))
        return None
    return value


def _syntax_error(error: yaml.MarkedYAMLError, where: str) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"{where}:{mark.line + 1}" if mark else where
    column = f" at column {mark.column + 1}" if mark else ""
    problem = error.problem or error.context or "unreadable"
    advice = "indent with spaces" if "\\t" in problem else "check quotes, colons and indents"
    return f"{place}: is not valid YAML: {problem}{column}; {advice}"
