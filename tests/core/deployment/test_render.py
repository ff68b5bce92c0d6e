"""What `deploy render` writes is what each reader takes, and says what adapters.yaml says."""

import json
import os
import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
import yaml
from trillium.deployment import manifests
from trillium.deployment.registry import register
from trillium.deployment.render import dump, render, write

SCHEMAS = Path(__file__).parent / "schemas"


@pytest.fixture
def rendered(registry, folder):
    return render(registry, folder, folder / "out")


def with_base(registry, **changes):
    return registry.model_copy(update={"base": registry.base.model_copy(update=changes)})


@pytest.fixture
def plain(registry, folder):
    """What is rendered where the tokenizer has its template itself."""
    return render(with_base(registry, chat_template=None), folder, folder / "out")


def check(values, schema):
    jsonschema.validate(values, json.loads((SCHEMAS / schema).read_text()))


def test_every_file_is_there_and_is_yaml(plain):
    assert set(plain.files) == {
        "vllm/serve.sh",
        "compose.yaml",
        *(f"k8s/{name}.yaml" for name in KUBERNETES),
        "kserve/llmisvc.yaml",
        "ray/serve_config.yaml",
        "ollama/code/Modelfile",
        "ollama/math/Modelfile",
    }
    assert plain.left_out == ()


KUBERNETES = ("kustomization", "deployment", "service", "networkpolicy", "autoscaler", "checksums")


def test_vllm_is_asked_for_what_the_registry_says(registry):
    arguments = manifests.vllm_arguments(registry)
    assert arguments[0] == "org/base"
    options = dict(pairwise(arguments))
    assert options["--revision"] == "abc123"
    assert options["--generation-config"] == "vllm"  # no top_k that nobody asked for
    assert options["--max-lora-rank"] == "8"  # the smallest vLLM has for rank 4
    assert options["--served-model-name"] == "smollm2"
    assert arguments[-2:] == ["code=/adapters/code", "math=/adapters/math"]


def test_every_vllm_uses_the_gpus_that_are_reserved_for_it(registry, folder):
    def sizes(gpus):
        serving = registry.serving.model_copy(update={"gpus": gpus})
        wanted = with_base(registry, chat_template=None).model_copy(update={"serving": serving})
        files = render(wanted, folder, folder / "out").files
        values = {name: yaml.safe_load(files[name]) for name in files if name.endswith(".yaml")}
        pod = values["k8s/deployment.yaml"]["spec"]["template"]["spec"]["containers"][0]
        assert pod["resources"]["limits"]["nvidia.com/gpu"] == str(gpus)
        kserve = values["kserve/llmisvc.yaml"]["spec"]["template"]["containers"][0]
        llm = values["ray/serve_config.yaml"]["applications"][0]["args"]["llm_configs"][0]
        texts = {
            "script": files["vllm/serve.sh"].replace("\\\n", ""),
            "compose": " ".join(values["compose.yaml"]["services"]["vllm"]["command"]),
            "pod": " ".join(pod["args"]),
            "kserve": kserve["env"][0]["value"],
            "ray": f"--tensor-parallel-size {llm['engine_kwargs']['tensor_parallel_size']}",
        }
        return {
            name: re.findall(r"--tensor-parallel-size[= ]+(\S+)", text)
            for name, text in texts.items()
        }

    assert sizes(4) == {name: ["4"] for name in ("script", "compose", "pod", "kserve", "ray")}
    assert sizes(1) == {"script": [], "compose": [], "pod": [], "kserve": [], "ray": ["1"]}


def test_the_script_gives_the_shell_those_arguments(registry, rendered):
    script = rendered.files["vllm/serve.sh"]
    command = script[script.index("exec vllm serve") :].replace("\\\n", "").replace(' "$@"', "")
    mounted = manifests.vllm_arguments(registry)
    mounted[mounted.index("--chat-template") + 1] = "../../template.jinja"
    mounted[-2:] = ["code=../../my adapters/code", "math=../../my adapters/math"]
    assert shlex.split(command)[3:] == mounted


def test_the_script_runs_where_the_adapters_are_and_not_without_a_token(
    rendered, folder, monkeypatch
):
    write(rendered, folder / "out")
    programs = folder / "programs"
    programs.mkdir()
    (programs / "vllm").write_text('#!/bin/sh\nfor given; do printf "%s\\n" "$given"; done\n')
    (programs / "vllm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    script = [folder / "out" / "vllm" / "serve.sh", "--port", "1"]
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    refused = subprocess.run(script, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "set it to the token" in refused.stderr
    monkeypatch.setenv("VLLM_API_KEY", "a-token")
    given = subprocess.run(script, capture_output=True, text=True, check=True).stdout.splitlines()
    assert given[:2] == ["serve", "org/base"]
    assert given[-2:] == ["--port", "1"]
    place = folder / "out" / "vllm"
    assert (place / given[given.index("--chat-template") + 1]).is_file()
    assert (place / given[-3].partition("=")[2] / "adapter_config.json").is_file()


def test_compose_serves_adapters_read_only_on_this_machine_with_a_token(rendered):
    values = yaml.safe_load(rendered.files["compose.yaml"])
    check(values, "compose.json")
    for name, profile in (("vllm", "gpu"), ("trillium", "cpu")):
        service = values["services"][name]
        assert service["profiles"] == [profile]
        assert service["secrets"] == ["token"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        mounts = {mount["target"]: mount for mount in service["volumes"]}
        assert mounts["/adapters/code"]["read_only"] is True
        assert mounts["/adapters/code"]["source"] == "./../my adapters/code"
    assert "/run/secrets/token" in values["services"]["vllm"]["entrypoint"][2]
    assert "--token-file=/run/secrets/token" in values["services"]["trillium"]["command"]


def test_compose_reads_every_dollar_of_the_registry_as_one(registry, folder):
    rendered = render(with_base(registry, source="/models/pri$ce"), folder, folder / "p$q" / "out")
    services = yaml.safe_load(rendered.files["compose.yaml"])["services"]
    assert services["vllm"]["command"][1] == "/models/pri$$ce"
    assert "--base=/models/pri$$ce" in services["trillium"]["command"]
    moved = with_base(registry, chat_template=Path("a$b.jinja"))
    mounts = manifests.compose(moved)["services"]["vllm"]["volumes"]
    assert mounts[2]["source"] == "./a$$b.jinja"
    assert "$" not in services["vllm"]["entrypoint"][2].replace("$$", "")


@pytest.mark.parametrize(("content", "key"), [("a-token\n", "a-token"), ("\n", None), (None, None)])
def test_vllm_starts_in_compose_with_its_token_or_not_at_all(rendered, tmp_path, content, key):
    service = yaml.safe_load(rendered.files["compose.yaml"])["services"]["vllm"]
    token = tmp_path / "token"
    if content is not None:
        token.write_text(content)
    command = [word.replace("$$", "$") for word in (*service["entrypoint"], *service["command"])]
    command = [word.replace("/run/secrets/token", str(token)) for word in command]
    assert start(command, tmp_path, {}) == (key and [key, "serve", *service["command"][1:]])


@pytest.mark.parametrize("key", ["a-token", ""])
def test_a_pod_starts_with_its_token_or_not_at_all(rendered, tmp_path, key):
    pod = yaml.safe_load(rendered.files["k8s/deployment.yaml"])["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    found = start([*server["command"], *server["args"]], tmp_path, {"VLLM_API_KEY": key})
    assert found == ([key, "serve", *server["args"]] if key else None)


def start(command, tmp_path, variables):
    """Run a container's command; return the key and the arguments that vllm got, if it ran."""
    (tmp_path / "vllm").write_text('#!/bin/sh\nprintf "%s\\n" "$VLLM_API_KEY" "$@"\n')
    (tmp_path / "vllm").chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **variables}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        assert "holds no token" in done.stderr
        return None
    return done.stdout.splitlines()


def test_compose_accepts_the_file(rendered, folder, check_compose):
    write(rendered, folder / "out")
    (folder / "out" / "token").write_text("token")
    for profile in ("gpu", "cpu"):
        check_compose(folder / "out" / "compose.yaml", "--profile", profile)


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_files_have_the_fields_of_their_kind(rendered, name):
    values = yaml.safe_load(rendered.files[f"k8s/{name}.yaml"])
    check(values, "kubernetes.json")
    try:
        import kubernetes_validate
    except ImportError:
        return
    if name != "kustomization":
        kubernetes_validate.validate(values, "1.33", strict=True)


def test_a_pod_starts_only_with_the_adapters_of_the_registry(rendered, registry, folder):
    pod = yaml.safe_load(rendered.files["k8s/deployment.yaml"])["spec"]["template"]["spec"]
    (check_adapters,) = pod["initContainers"]
    assert check_adapters["command"] == ["sha256sum", "--check", "--strict", "/checksums/sha256"]
    lines = yaml.safe_load(rendered.files["k8s/checksums.yaml"])["data"]["sha256"]
    local = lines.replace("/adapters/", f"{folder / 'my adapters'}/")
    command = ["sha256sum", "--check", "--strict", "-"]
    assert subprocess.run(command, input=local, text=True, capture_output=True).returncode == 0
    weights = folder / "my adapters" / "math" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"x")
    assert subprocess.run(command, input=local, text=True, capture_output=True).returncode == 1


def test_kubernetes_selectors_meet(rendered):
    files = {name: yaml.safe_load(rendered.files[f"k8s/{name}.yaml"]) for name in KUBERNETES}
    labels = files["deployment"]["spec"]["template"]["metadata"]["labels"]
    assert files["deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert files["service"]["spec"]["selector"] == labels
    assert files["networkpolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert (
        files["autoscaler"]["spec"]["scaleTargetRef"]["name"]
        == files["deployment"]["metadata"]["name"]
    )
    assert set(files["kustomization"]["resources"]) == {
        f"{name}.yaml" for name in KUBERNETES if name != "kustomization"
    }
    pod = files["deployment"]["spec"]["template"]["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in (*pod["initContainers"], *pod["containers"]):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert files["checksums"]["data"]["chat_template.jinja"] == "{{ messages }}\n"


def test_kserve_names_base_and_adapters(plain):
    values = yaml.safe_load(plain.files["kserve/llmisvc.yaml"])
    check(values, "kserve.json")
    assert values["spec"]["model"]["uri"] == "hf://org/base:abc123"
    assert [each["name"] for each in values["spec"]["model"]["lora"]["adapters"]] == [
        "code",
        "math",
    ]


def test_ray_reads_the_configuration_with_its_own_schema(plain):
    schema = pytest.importorskip("ray.serve.schema", reason="ray[serve] is not installed")
    values = yaml.safe_load(plain.files["ray/serve_config.yaml"])
    read = schema.ServeDeploySchema.model_validate(values)
    (llm,) = read.applications[0].args["llm_configs"]
    assert llm["lora_config"]["dynamic_lora_loading_path"] == "s3://bucket/adapters"
    assert llm["engine_kwargs"]["max_lora_rank"] == 8


def test_ray_serve_has_what_its_schema_requires(plain):
    check(yaml.safe_load(plain.files["ray/serve_config.yaml"]), "ray.json")


def test_ollama_puts_each_adapter_on_the_base(rendered, folder):
    lines = rendered.files["ollama/code/Modelfile"].splitlines()
    words = dict(line.split(" ", 1) for line in lines if not line.startswith("#"))
    place = folder / "out" / "ollama" / "code"
    assert (place / words["FROM"]).resolve() == folder / "base.gguf"
    assert (place / words["ADAPTER"]).resolve() == folder / "code.gguf"


def test_what_the_file_does_not_say_is_left_out_with_the_reason(tmp_path, adapter, base):
    path = tmp_path / "adapters.yaml"
    registry = register(path, "code", adapter, base=base)
    rendered = render(registry, tmp_path, tmp_path / "out")
    assert [re.match(r"[\w./]+", reason)[0] for reason in rendered.left_out] == [
        "compose.yaml",
        "kserve/llmisvc.yaml",
        "ray/serve_config.yaml",
        "ollama/code/Modelfile",
    ]


def test_a_machine_without_gpu_needs_an_image_of_somebody(registry, folder):
    serving = registry.serving.model_copy(update={"cpu_image": None})
    rendered = render(registry.model_copy(update={"serving": serving}), folder, folder / "out")
    assert list(yaml.safe_load(rendered.files["compose.yaml"])["services"]) == ["vllm"]
    assert "serving.cpu_image names no image" in rendered.left_out[0]


def test_what_takes_no_template_is_left_out_where_there_is_one(rendered):
    left_out = dict(reason.split(": ", 1) for reason in rendered.left_out)
    assert set(left_out) == {"kserve/llmisvc.yaml", "ray/serve_config.yaml"}
    assert all("base.chat_template is a file" in reason for reason in left_out.values())
    assert not set(left_out) & set(rendered.files)


def test_a_base_in_a_folder_is_left_out_where_servers_do_not_see_it(registry, folder):
    def left_out(source):
        base = with_base(registry, source=source, chat_template=None, revision=None)
        rendered = render(base, folder, folder / "out")
        assert "compose.yaml" in rendered.files
        missing = dict(reason.split(": ", 1) for reason in rendered.left_out)
        assert not any(path.startswith(tuple(missing)) for path in rendered.files)
        return missing

    missing = left_out("/models/base")
    assert set(missing) == {"k8s", "kserve/llmisvc.yaml"}
    assert all("base.source is a folder" in reason for reason in missing.values())
    assert set(left_out("/adapters/base")) == {"kserve/llmisvc.yaml"}


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "on",
        "null",
        "1e3",
        "123e45",
        "0x1F",
        "12:30",
        "2026-11-26",
        "-x",
        "a: b",
        "#",
        "",
        "~",
        "1_0",
        ".5",
        "é",
        'q"x',
    ],
)
def test_text_stays_text_for_every_reader_of_yaml(text):
    assert yaml.safe_load(dump({"key": text})) == {"key": text}
    if not re.fullmatch(r"[a-zé/_][^\s:#]*", text) or text in {"no", "on", "null"}:
        assert f'"{text}"' in dump({"key": text}) or "\\" in dump({"key": text})
