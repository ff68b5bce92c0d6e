"""Name a model by its files, before any of it is loaded: an input of every stage that computes.

What a tokenizer and its template make of rows is not named here; name the trees instead. Weights
are read again only where their files changed.
"""

from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from trillium.files import hash_json
from trillium.scoring.cache import open_cache

# What the model computes, and where its replies stop.
_PATTERNS = ("*.safetensors", "*.bin", "config.json", "generation_config.json")
_NAMING = ("tokenizer_config.json", "tokenizer.json", "config.json")


def hash_model(source: str) -> str:
    """Return a sha256 of what a folder, or a hub id whose tokenizer was loaded, computes."""
    folder = Path(source)
    if not folder.is_dir():
        return hash_json({"hub": source, "commit": _commit_of(source)})
    paths = sorted(path for pattern in _PATTERNS for path in folder.glob(pattern))
    with open_cache() as cache:
        return hash_json([[path.name, cache.file_hash(path)] for path in paths])


def _commit_of(source: str) -> str | None:
    """Return the commit that main is at in the hub's cache; None where nothing is cached."""
    found = (try_to_load_from_cache(source, name) for name in _NAMING)
    return next((Path(path).parent.name for path in found if isinstance(path, str)), None)
