"""The base of an adapter: where it is, what it is, and the hash of its weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from trillium.assets import ASSETS, find_model
from trillium.deployment.adapter_files import read_shapes
from trillium.errors import BackendError, ConfigError
from trillium.files import hash_json, hash_path

_SMALL_FILES = ["*.json", "*.jinja", "tokenizer.model"]


@dataclass(frozen=True)
class BaseFiles:
    """Hold a base: its name, its folder on this disk, and its configuration."""

    name: str
    folder: Path
    config: Mapping[str, object]

    @property
    def model_type(self) -> str:
        """Return the architecture by transformers' name, such as llama."""
        return str(self.config.get("model_type", ""))

    @property
    def weights(self) -> list[Path]:
        """Return the weight files on this disk; none where only the small files were fetched."""
        return sorted(self.folder.glob("*.safetensors"))

    @property
    def licence(self) -> str | None:
        """Return the licence, where the base is one of our assets."""
        asset = ASSETS.get(self.name)
        return None if asset is None else f"{asset.license} ({asset.license_url})"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every weight on this disk."""
        found: dict[str, tuple[int, ...]] = {}
        for path in self.weights:
            found |= read_shapes(path)
        return found

    def weights_sha256(self) -> str | None:
        """Return one hash over the names and contents of the weight files; None without any."""
        return hash_weights(self.folder)


def hash_weights(folder: Path) -> str | None:
    """Return one hash over the names and contents of a model's weight files; None without any."""
    paths = sorted(folder.glob("*.safetensors"))
    return hash_json([[path.name, hash_path(path)] for path in paths]) if paths else None


def find_base(name: str, revision: str | None = None) -> BaseFiles:
    """Find a base by asset name, folder or hub id; of the hub only the small files are fetched.

    Raises ConfigError when there is no such base, BackendError when the hub cannot be reached.
    """
    source = find_model(name)
    folder = Path(source)
    if not folder.is_dir():
        folder = _fetch_small_files(source, revision)
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error}); give the folder of a model saved by transformers"
        ) from None
    return BaseFiles(name, folder, config)


def _fetch_small_files(source: str, revision: str | None) -> Path:
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=_SMALL_FILES))
    except LocalEntryNotFoundError as error:
        raise BackendError(
            f"{source}: is not on this disk and the hub cannot be reached; check the network and "
            "HF_HUB_OFFLINE, or name a folder that holds it"
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        at = f" at revision {revision}" if revision else ""
        raise ConfigError(
            f"{source}: the hub has no such model{at} ({str(error).splitlines()[0]}); "
            "check name, revision and access"
        ) from error
