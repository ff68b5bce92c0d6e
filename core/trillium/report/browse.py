"""A searchable browser of samples as one HTML file: no network, no file beside it.

The samples are data, not markup: JSON in which no `<` stands, written into the page as text by the
one script that the content security policy admits by its hash.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trillium.assets import find_model
from trillium.errors import ConfigError, DataError
from trillium.report.browse_samples import (
    Decode,
    Sample,
    find_sample_files,
    kind_of,
    needs_tokens,
    read_samples,
)
from trillium.report.text import show_invisible
from trillium.yamlfile import read_yaml


def render_browser(title: str, samples: Iterable[tuple[str, Sample]], *, n_left_out: int) -> str:
    """Return the page for samples, each with the name of its file."""
    rows = [_to_json(file, sample) for file, sample in samples]
    environment = Environment(
        loader=PackageLoader("trillium.report"), autoescape=True, undefined=StrictUndefined
    )
    script = environment.get_template("browse.js").render()
    payload = json.dumps(rows, ensure_ascii=False).replace("<", "\\u003c")
    left_out = f"; {n_left_out:,} more are not on this page" if n_left_out else ""
    return environment.get_template("browse.html.j2").render(
        title=title,
        subtitle=f"{len(rows):,} samples{left_out}",
        samples=Markup(payload),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def browse(targets: Sequence[Path], *, tokenizer: str | None, max_samples: int) -> str:
    """Return the page for preference files and run folders.

    Token ids are read with `tokenizer`, or that of the run's base model. Raises ConfigError when a
    target does not exist, DataError when nothing in it can be shown.
    """
    files = [file for target in targets for file in _files(target)]
    samples: list[tuple[str, Sample]] = []
    n_left_out = 0
    for target, path in files:
        kind = kind_of(path)
        decode = _decoder(target, tokenizer) if kind and needs_tokens(kind) else None
        name = str(path.relative_to(target)) if target.is_dir() else path.name
        found = read_samples(path, decode)
        samples += [(name, sample) for sample in islice(found, max_samples - len(samples))]
        n_left_out += sum(1 for _ in found)
    title = ", ".join(target.name or str(target) for target in targets)
    return render_browser(title, samples, n_left_out=n_left_out)


def _files(target: Path) -> Iterator[tuple[Path, Path]]:
    if target.is_file():
        yield target, target
        return
    if not target.is_dir():
        raise ConfigError(f"{target}: there is no such file or folder; check the path")
    found = find_sample_files(target)
    if not found:
        raise DataError(
            f"{target}: holds no pairs, trees or trajectories (looked at *.jsonl); "
            "name a run that made some, or a preference file"
        )
    for path in found:
        yield target, path


def _decoder(target: Path, tokenizer: str | None) -> Decode | None:
    source = tokenizer or _base_of(target)
    if source is None:
        return None
    from trillium.policies.tokenizer import load_tokenizer

    loaded = load_tokenizer(find_model(source))

    def decode(ids: Sequence[int]) -> str:
        try:
            return str(loaded.decode(list(ids)))
        except OverflowError:
            raise DataError(
                f"has tokens {min(ids)} to {max(ids)} (needs ids of a tokenizer, from 0); correct "
                "or drop the line"
            ) from None

    return decode


def _base_of(folder: Path) -> str | None:
    """Return the base model that a run's configuration names."""
    path = folder / "config.yaml"
    values = read_yaml(path).values if path.is_file() else None
    policy = values.get("policy") if isinstance(values, dict) else None
    base = policy.get("base") if isinstance(policy, dict) else None
    return base if isinstance(base, str) else None


def _to_json(file: str, sample: Sample) -> dict[str, object]:
    nodes = [
        {
            "parts": [[show_invisible(text), scored] for text, scored in node.parts],
            "parent": node.parent,
            "badges": [show_invisible(badge) for badge in node.badges],
        }
        for node in sample.nodes
    ]
    badges = [show_invisible(badge) for badge in sample.badges]
    return {
        "id": show_invisible(sample.id),
        "kind": sample.kind,
        "file": file,
        "badges": badges,
        "nodes": nodes,
    }
