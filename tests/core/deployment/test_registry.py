"""adapters.yaml: what it may say, how it grows, and what is checked against the disk."""

import contextlib
import os
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from trillium.deployment.cli import app
from trillium.deployment.registry import Registry, read_registry, register, verify_registry
from trillium.deployment.render import render
from trillium.errors import ConfigError
from trillium.serving.sources import find_sources
from typer.testing import CliRunner


def test_a_missing_template_is_named_with_all_else_that_differs(folder, registry):
    (folder / "template.jinja").unlink()
    (folder / "my adapters" / "code" / "adapter_model.safetensors").unlink()
    with pytest.raises(ConfigError) as error:
        verify_registry(registry, folder)
    assert "template.jinja: is no chat template" in str(error.value)
    assert "adapter_model.safetensors: cannot be read" in str(error.value)


def test_a_changed_adapter_is_refused_with_all_that_differs(folder, registry):
    verify_registry(registry, folder)
    for name in ("code", "math"):
        weights = folder / "my adapters" / name / "adapter_model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        verify_registry(registry, folder)
    assert "code: sha256" in str(error.value)
    assert "math: sha256" in str(error.value)


def test_registering_again_replaces_and_a_new_file_needs_a_base(tmp_path, adapter, base):
    path = tmp_path / "adapters.yaml"
    with pytest.raises(ConfigError, match="does not exist yet"):
        register(path, "code", adapter, base=None)
    register(path, "code", adapter, base=base)
    register(path, "math", adapter, base=None)
    again = register(path, "code", adapter, base=None)
    assert sorted(each.name for each in again.adapters) == ["code", "math"]
    assert read_registry(path) == again
    for key, value in (("source", "org/other"), ("name", "other"), ("revision", "def")):
        with pytest.raises(ConfigError, match=f"{key} '{base[key]}', not '{value}'"):
            register(path, "code", adapter, base={key: value})
    for name in ("Code", "a b", "smollm2", "-x", "x" * 64):
        with pytest.raises(ConfigError, match="cannot be added"):
            register(path, name, adapter, base=None)
    assert read_registry(path) == again


@pytest.mark.parametrize("option", ["--base", "--base-name", "--revision"])
def test_an_option_for_another_base_than_that_of_the_file_is_refused(folder, adapter, option):
    path = folder / "adapters.yaml"
    before = path.read_text()
    command = ["add", "more", str(adapter), "--registry", str(path), option, "other"]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, ConfigError)
    assert "not 'other'" in str(done.exception)
    assert path.read_text() == before


def test_a_relative_base_is_found_from_wherever_it_is_named(folder, adapter, llama_base):
    """In the file it is relative to the file, on the command line to where one stands."""
    shutil.copytree(llama_base, folder / "place" / "base")
    path = folder / "place" / "adapters.yaml"
    with contextlib.chdir(folder):
        base = {"name": "llama", "source": "./place/base"}
        registry = register(Path("place/adapters.yaml"), "code", adapter, base=base)
        assert registry.base.source == "./base"
        register(Path("place/adapters.yaml"), "math", adapter, base=base)
    with contextlib.chdir(folder / "place"):
        base = {"name": "llama", "source": "../elsewhere"}
        assert register(Path("new.yaml"), "code", adapter, base=base).base.source == "../elsewhere"
    for place in (folder, folder / "place"):
        with contextlib.chdir(place):
            assert find_sources([os.path.relpath(path)], base=None).base == str(
                path.parent / "base"
            )
    rendered = render(registry, folder / "place", folder / "out")
    script = rendered.files["vllm/serve.sh"].replace("\\\n", "")
    source = shlex.split(script[script.index("exec vllm serve") :])[3]
    assert (folder / "out" / "vllm" / source).resolve() == folder / "place" / "base"
    missing = dict(reason.split(": ", 1) for reason in rendered.left_out)
    assert "Compose does not see" in missing["compose.yaml"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": "xyz"}, "adapters.0.sha256"),
        ({"rank": 0}, "adapters.0.rank"),
        ({"rnak": 4}, "rank"),
        ({"name": "smollm2"}, "twice"),
    ],
)
def test_mistakes_in_the_file_are_named(folder, change, said):
    path = folder / "adapters.yaml"
    values = yaml.safe_load(path.read_text())
    values["adapters"][0] |= change
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=said):
        read_registry(path)


def test_ranks_of_servers_are_rounded_up():
    from trillium.deployment.portable import serving_rank

    assert [serving_rank(rank) for rank in (1, 2, 8, 9, 65, 257, 512)] == [
        1,
        8,
        8,
        16,
        128,
        320,
        512,
    ]
    with pytest.raises(ConfigError, match="513"):
        serving_rank(513)


def test_the_example_of_the_repository_is_valid():
    path = Path(__file__).parents[3] / "deploy" / "adapters.example.yaml"
    assert isinstance(read_registry(path), Registry)
