"""`trillium serve` as a process: it says where it is, ends cleanly, and refuses what is unsafe."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import httpx2
import pytest
import yaml
from trillium.deployment.registry import register
from trillium.errors import ConfigError
from trillium.policies.tiny import tiny_tokenizer
from trillium.serving import listening
from trillium.serving.cli import app
from trillium.serving.launch import LaunchSettings, open_engine, serve_until_told
from trillium.serving.sources import Sources, find_sources
from typer.testing import CliRunner

COMMAND = [sys.executable, "-c", "from trillium.serving.cli import app; app()"]


def test_a_process_serves_with_its_token_and_ends_with_what_is_under_way(shelf, tmp_path):
    (tmp_path / "token").write_text("a-secret\n")
    adapter = shelf / "adapters" / "one"
    arguments = [f"mine={adapter}", "--base", str(shelf / "base"), "--port", "0"]
    arguments += ["--token-file", str(tmp_path / "token"), "--dtype", "float32"]
    process = subprocess.Popen(
        [*COMMAND, *arguments], stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        said = process.stderr.readline()
        found = re.fullmatch(r"serve: base, mine, on (http://127\.0\.0\.1:\d+)\n", said)
        assert found, said
        headers = {"Authorization": "Bearer a-secret"}
        with httpx2.Client(base_url=found[1], headers=headers, timeout=120) as client:
            body = {"model": "mine", "prompt": "x", "temperature": 0, "max_tokens": 200}
            with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as reply:
                lines = reply.iter_lines()
                next(lines)
                process.send_signal(signal.SIGTERM)
                events = [line for line in lines if line]
            assert events[-1] == "data: [DONE]"
            assert '"finish_reason": "length"' in events[-2]
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stderr.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org"])
def test_other_machines_need_a_token_unless_told_otherwise(shelf, host):
    sources = Sources(str(shelf / "base"), {})
    with pytest.raises(ConfigError, match="reachable from other machines"):
        serve_until_told(sources, LaunchSettings(), address=(host, 0), no_token=False)


def test_loopback_is_loopback():
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        assert listening.is_loopback(host)


def test_a_length_beyond_the_model_and_a_name_given_twice_are_refused(shelf):
    sources = Sources(str(shelf / "base"), {"base": shelf / "adapters" / "one"})
    with (
        pytest.raises(ConfigError, match="the model reads 2048"),
        open_engine(Sources(str(shelf / "base"), {}), LaunchSettings(max_length=2049)),
    ):
        pass
    with (
        pytest.raises(ConfigError, match="is the name of the base and of an adapter"),
        open_engine(sources, LaunchSettings()),
    ):
        pass


def test_an_adapter_of_another_base_ends_the_start_with_a_sentence(shelf, tmp_path):
    sources = Sources(str(shelf / "base"), {"none": tmp_path})
    with (
        pytest.raises(ConfigError, match="holds no adapter"),
        open_engine(sources, LaunchSettings()),
    ):
        pass


def write_adapters_file(shelf, path, **base):
    values = {"name": "tiny", "source": str(shelf / "base"), **base}
    register(path, "mine", shelf / "adapters" / "one", base=values)
    return str(path)


def test_the_template_of_adapters_yaml_takes_the_place_of_the_tokenizers(shelf, tmp_path):
    (tmp_path / "turns.jinja").write_text("{{ messages[0].content }}!")
    file = write_adapters_file(shelf, tmp_path / "adapters.yaml", chat_template="turns.jinja")
    turns = [{"role": "user", "content": "Hello"}]
    with open_engine(find_sources([file], base=None), LaunchSettings()) as (engine, _):
        served = engine.adapters.find("mine")
        assert served.tokenizer.apply_chat_template(turns, tokenize=False) == "Hello!"
    (tmp_path / "turns.jinja").unlink()
    with (
        pytest.raises(ConfigError, match=r"turns\.jinja: is no chat template"),
        open_engine(find_sources([file], base=None), LaunchSettings()),
    ):
        pass


def test_a_template_that_is_given_is_that_of_adapters_with_their_own_tokenizer_too(
    shelf, serve, tmp_path
):
    template = tmp_path / "turns.jinja"
    template.write_text("{{ messages[0].content }}!")
    shutil.copytree(shelf / "base", tmp_path / "base")
    for name in ("start", "later"):
        folder = tmp_path / "adapters" / name
        shutil.copytree(shelf / "adapters" / "one", folder)
        own = tiny_tokenizer()
        own.chat_template = f"{name}: {{{{ messages[0].content }}}}"
        own.save_pretrained(folder)
    turns = [{"role": "user", "content": "Hello"}]

    def rendered(client):
        load = {"lora_name": "later", "lora_path": "later"}
        assert client.post("/v1/load_lora_adapter", json=load).status_code == 200
        return [
            each.tokenizer.apply_chat_template(turns, tokenize=False)
            for each in client.engine.adapters.served()
        ][1:]

    options = {"names": ("start",), "adapters_folder": tmp_path / "adapters"}
    with serve(tmp_path, **options) as client:
        assert rendered(client) == ["start: Hello", "later: Hello"]
    with serve(tmp_path, chat_template=template, **options) as client:
        assert rendered(client) == ["Hello!", "Hello!"]
        body = {"messages": turns, "max_tokens": 8, "temperature": 0}
        asked = [
            client.post("/v1/chat/completions", json={**body, "model": m}).json()
            for m in ("start", "later")
        ]
        assert {each["usage"]["prompt_tokens"] for each in asked} == {len("Hello!")}


def test_the_commit_of_adapters_yaml_is_that_of_its_own_base_only(shelf, tmp_path):
    file = write_adapters_file(shelf, tmp_path / "adapters.yaml", revision="abc")
    assert find_sources([file], base=None).revision == "abc"
    assert find_sources([file], base=None, revision="def").revision == "def"
    assert find_sources([file], base=str(shelf / "base")).revision is None


def write_limits(path, **limits):
    values = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**values, "serving": {**values["serving"], **limits}}))


def test_names_and_limits_of_adapters_yaml_hold_where_no_option_says_otherwise(shelf, tmp_path):
    file = write_adapters_file(shelf, tmp_path / "adapters.yaml")
    write_limits(tmp_path / "adapters.yaml", max_length=300, max_adapters=3)
    sources = find_sources([f"other={shelf / 'adapters' / 'two'}", file], base=None)
    with open_engine(sources, LaunchSettings()) as (engine, server):
        assert [each.name for each in engine.adapters.served()] == ["tiny", "other", "mine"]
        assert (server.limits.max_length, server.max_adapters) == (300, 3)
    settings = LaunchSettings(base_name="own", max_length=200, max_adapters=5)
    with open_engine(sources, settings) as (engine, server):
        assert engine.adapters.base_name == "own"
        assert (server.limits.max_length, server.max_adapters) == (200, 5)
    # The default of the file, 4096, is a most: it does not keep a smaller model from being served.
    write_limits(tmp_path / "adapters.yaml", max_length=4096)
    with open_engine(find_sources([file], base=None), LaunchSettings()) as (_, server):
        assert server.limits.max_length == 2048
    assert find_sources([str(shelf / "base")], base=None).max_adapters is None


def pin(shelf, folder, revision, base="org/base"):
    """Copy an adapter, and write what it says of its base."""
    shutil.copytree(shelf / "adapters" / "one", folder)
    path = folder / "adapter_config.json"
    facts = {"base_model_name_or_path": base, "revision": revision}
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))
    return str(folder)


def test_the_commit_that_an_adapter_pins_is_that_of_its_own_base_only(shelf, tmp_path):
    pinned, free = pin(shelf, tmp_path / "a", "abc"), pin(shelf, tmp_path / "b", None)
    assert find_sources([free], base=None).revision is None
    assert find_sources([free, pinned], base=None).revision == "abc"
    assert find_sources([pinned], base="org/base").revision == "abc"
    assert find_sources([pinned], base=None, revision="def").revision == "def"
    assert find_sources([pinned], base=str(shelf / "base")).revision is None
    other = pin(shelf, tmp_path / "c", "def")
    with pytest.raises(ConfigError, match=r"several revisions of org/base \(abc, def\)"):
        find_sources([pinned, other], base=None)


def test_a_name_is_given_once_also_by_adapters_yaml(shelf, tmp_path):
    base = str(shelf / "base")
    file = write_adapters_file(shelf, tmp_path / "adapters.yaml")
    targets = [file, f"mine={shelf / 'adapters' / 'two'}"]
    for order in (targets, targets[::-1], [file, file]):
        with pytest.raises(ConfigError, match="another adapter is called 'mine'"):
            find_sources(order, base=base)


def test_tokens_are_read_from_files_and_the_environment_only(tmp_path, monkeypatch):
    monkeypatch.setenv("TRILLIUM_SERVE_TOKEN", "from-environment")
    assert listening.read_token(None, listening.SERVE_TOKEN) == "from-environment"
    for content in ("", "\n", "two\nlines", "ü"):
        (tmp_path / "token").write_text(content)
        with pytest.raises(ConfigError, match="holds no token"):
            listening.read_token(tmp_path / "token", listening.SERVE_TOKEN)
    for value in ("\n", "\udcffabc", "ü", "two\nlines"):
        monkeypatch.setenv("TRILLIUM_SERVE_TOKEN", value)
        with pytest.raises(ConfigError, match="TRILLIUM_SERVE_TOKEN: holds no token"):
            listening.read_token(None, listening.SERVE_TOKEN)
    monkeypatch.setenv("TRILLIUM_SERVE_TOKEN", "from-environment\n")
    assert listening.read_token(None, listening.SERVE_TOKEN) == "from-environment"
    monkeypatch.setenv("TRILLIUM_SERVE_TOKEN", "")
    assert listening.read_token(None, listening.SERVE_TOKEN) is None
    with pytest.raises(ConfigError, match="cannot be read"):
        listening.read_token(tmp_path / "nowhere", listening.SERVE_TOKEN)
    assert "--token " not in CliRunner().invoke(app, ["--help"]).output
