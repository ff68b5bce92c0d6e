"""What the doctor finds, and that each lack comes with advice."""

import sys
import tomllib
from pathlib import Path

import pytest
from trillium import environment
from trillium.assets import ASSETS
from trillium.doctor import Finding, examine, render

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILLIUM_CACHE", str(tmp_path / "cache"))
    for asset in ASSETS.values():
        monkeypatch.delenv(asset.variable, raising=False)


def named(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def test_every_subject_is_examined_once_and_every_lack_has_advice() -> None:
    findings = examine()
    names = [finding.name for finding in findings]
    assert len(names) == len(set(names))
    assert {"processor", "gpu", "memory", "disk", "sandbox", "docker", "extras"} <= set(names)
    assert [name for name in names if name.startswith("asset ")] == [f"asset {n}" for n in ASSETS]
    for finding in findings:
        assert finding.found
        assert finding.advice or finding.state == "ok"


def test_an_asset_that_is_not_fetched_says_how_to_fetch_it() -> None:
    finding = named(examine(), "asset smollm2-135m-instruct")
    assert (finding.state, finding.found) == ("limited", "not fetched")
    assert finding.advice == "trillium assets get smollm2-135m-instruct (92.9 MB to download)"


def test_a_supplied_path_that_names_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILLIUM_ASSET_HUMANEVAL", "/nowhere")
    finding = named(examine(), "asset humaneval")
    assert (finding.state, finding.found) == ("missing", "/nowhere")
    assert finding.advice == "TRILLIUM_ASSET_HUMANEVAL names nothing; correct or unset it"


def test_the_processor_line_follows_its_flags() -> None:
    finding = named(examine(), "processor")
    has_units = {"avx512_bf16", "amx_bf16", "bf16"} & environment.cpu_flags()
    assert finding.state == ("ok" if has_units else "limited")
    assert f"{environment.count_cpus()} cores" in finding.found


def test_the_text_puts_advice_under_its_finding() -> None:
    text = render([Finding("disk", "ok", "9 GiB"), Finding("gpu", "limited", "none", "buy one")])
    assert [line.split() for line in text.splitlines()] == [
        ["ok", "disk", "9", "GiB"],
        ["limited", "gpu", "none"],
        ["->", "buy", "one"],
    ]


def test_the_environment_is_the_same_on_every_call() -> None:
    first = environment.describe_environment()
    assert first == environment.describe_environment()
    assert first["memory_bytes"] == environment.memory_bytes() > 2**28
    assert environment.package_versions()["torch"].startswith("2.")


def test_a_cache_that_is_a_file_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("TRILLIUM_CACHE", str(tmp_path / "file"))
    disk = next(finding for finding in examine() if finding.name == "disk")
    assert (disk.state, disk.advice) == ("missing", "set TRILLIUM_CACHE")


def test_every_extra_of_a_user_is_looked_at() -> None:
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    found = named(examine(), "extras").found.removeprefix("without ").split(", ")
    assert set(found) <= set(extras) - {"all", "dev", "docs"}
    if named(examine(), "extras").state == "ok":
        assert set(found) == set(extras) - {"all", "dev", "docs"}


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("scipy", "rec"),
        ("reasoning_gym", "math-extras"),
        ("fastapi", "service"),
        ("ray", "ray"),
        ("gpytorch", "tune"),
    ],
)
def test_an_extra_lacks_what_any_of_its_modules_lacks(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    finding = named(examine(), "extras")
    assert finding.state == "limited"
    assert extra in finding.found.removeprefix("without ").split(", ")
    assert finding.advice.startswith("pip install 'trillium[")
