"""Compose, Kubernetes, KServe and Ray Serve files as plain values, from one registry.

Sources: Compose specification; Kubernetes apps/v1, networking.k8s.io/v1, autoscaling/v2; KServe
serving.kserve.io/v1alpha2 LLMInferenceService; Ray Serve's schema with ray.serve.llm.LLMConfig.
"""

from pathlib import Path

from trillium.deployment.registry import Registry
from trillium.errors import ConfigError

ADAPTERS = "/adapters"
"""Where servers find the adapters, read-only."""

_PORT = 8000
_TOKEN_FILE = "/run/secrets/token"
_TEMPLATE_FILE = "/config/chat_template.jinja"
Values = dict[str, object]


def vllm_arguments(registry: Registry, *, port: int = _PORT, is_mounted: bool = True) -> list[str]:
    """Return the arguments of `vllm serve`; the token comes from the variable VLLM_API_KEY.

    Adapters and template are where containers see them, or else where `registry` says.
    """
    base, serving = registry.base, registry.serving
    modules = [
        f"{each.name}={f'{ADAPTERS}/{each.name}' if is_mounted else each.path}"
        for each in registry.adapters
    ]
    template = _TEMPLATE_FILE if is_mounted else str(base.chat_template)
    return [
        base.source,
        "--served-model-name",
        base.name,
        *(["--revision", base.revision] if base.revision else []),
        "--enable-lora",
        "--max-lora-rank",
        str(registry.max_rank),
        "--max-loras",
        str(min(serving.max_adapters, len(registry.adapters))),
        "--max-cpu-loras",
        str(max(serving.max_adapters, len(registry.adapters))),
        "--max-model-len",
        str(serving.max_length),
        *(["--tensor-parallel-size", str(serving.gpus)] if serving.gpus > 1 else []),
        # Else whoever names no top_k gets that of the base's generation_config.json.
        "--generation-config",
        "vllm",
        *(["--chat-template", template] if base.chat_template else []),
        "--port",
        str(port),
        "--lora-modules",
        *modules,
    ]


def serve_arguments(registry: Registry) -> list[str]:
    """Return the arguments of `trillium serve` in a container."""
    base, serving = registry.base, registry.serving
    return [
        "--host=0.0.0.0",
        f"--port={_PORT}",
        f"--token-file={_TOKEN_FILE}",
        f"--base={base.source}",
        *([f"--revision={base.revision}"] if base.revision else []),
        *([f"--chat-template={_TEMPLATE_FILE}"] if base.chat_template else []),
        f"--base-name={base.name}",
        f"--max-length={serving.max_length}",
        f"--max-adapters={serving.max_adapters}",
        "--",
        *(f"{each.name}={ADAPTERS}/{each.name}" for each in registry.adapters),
    ]


def compose(registry: Registry) -> Values:
    """Return `compose.yaml`: profile `gpu` runs vLLM, profile `cpu` runs `trillium serve`.

    There is no profile `cpu` without an image of it. Raises ConfigError for a base that containers
    do not see.
    """
    _check_base(registry, "Compose")
    mounts: list[object] = [
        _mount(each.path, f"{ADAPTERS}/{each.name}") for each in registry.adapters
    ]
    if registry.base.chat_template is not None:
        mounts.append(_mount(registry.base.chat_template, _TEMPLATE_FILE))
    models = {"type": "volume", "source": "models", "target": "/models"}
    common: Values = {
        "volumes": [*mounts, models],
        "secrets": ["token"],
        "ports": [f"127.0.0.1:{_PORT}:{_PORT}"],
        "restart": "unless-stopped",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "stop_grace_period": "30s",
        "healthcheck": {
            "test": ["CMD", "python3", "-c", _HEALTH],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": "300s",
        },
    }
    gpu: Values = {
        **common,
        "profiles": ["gpu"],
        "image": registry.serving.vllm_image,
        "entrypoint": ["sh", "-c", _WITH_TOKEN],
        "command": ["vllm", *vllm_arguments(registry)],
        "environment": {"HF_HOME": "/models"},
        "ipc": "host",
        "deploy": {
            "resources": {
                "reservations": {
                    "devices": [
                        {
                            "driver": "nvidia",
                            "count": registry.serving.gpus,
                            "capabilities": ["gpu"],
                        }
                    ]
                }
            }
        },
    }
    cpu: Values = {
        **common,
        "profiles": ["cpu"],
        "image": registry.serving.cpu_image,
        "command": serve_arguments(registry),
        "environment": {"HF_HOME": "/models", "TRILLIUM_CACHE": "/models/trillium"},
        "read_only": True,
        "tmpfs": ["/tmp:size=64m,mode=1777,nosuid,nodev,noexec"],
    }
    services = {"vllm": gpu, **({"trillium": cpu} if registry.serving.cpu_image else {})}
    return {
        "name": registry.base.name,
        "services": _double_dollars(services),
        "volumes": {"models": {}},
        "secrets": {"token": {"file": "./token"}},
    }


def kserve(registry: Registry) -> Values:
    """Return an LLMInferenceService; raises ConfigError for what it cannot express."""
    _check_template(registry, "KServe")
    if registry.base.is_folder:
        raise ConfigError(
            f"adapters.yaml: base.source is a folder ({registry.base.source}), which KServe does "
            "not see; upload the base and write its hf://, s3:// or pvc:// uri"
        )
    missing = [each.name for each in registry.adapters if each.uri is None]
    if missing:
        raise ConfigError(
            f"adapters.yaml: {missing[0]} has no uri (hf://, s3:// or pvc://), which KServe needs; "
            "upload the adapter and write its uri"
        )
    base, serving = registry.base, registry.serving
    uri = base.source if "://" in base.source else f"hf://{base.source}"
    if base.revision and uri.startswith("hf://"):
        uri = f"{uri}:{base.revision}"
    resources = {"nvidia.com/gpu": str(serving.gpus), "memory": serving.memory}
    arguments = (
        f"--max-lora-rank={registry.max_rank} --max-model-len={serving.max_length} "
        "--generation-config=vllm"
    )
    if serving.gpus > 1:
        arguments += f" --tensor-parallel-size={serving.gpus}"
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {"name": base.name, "namespace": serving.namespace},
        "spec": {
            "model": {
                "uri": uri,
                "name": base.name,
                "lora": {
                    "adapters": [{"name": each.name, "uri": each.uri} for each in registry.adapters]
                },
            },
            "replicas": serving.replicas,
            "router": {"gateway": {}, "route": {}, "scheduler": {}},
            "template": {
                "containers": [
                    {
                        "name": "main",
                        "env": [{"name": "VLLM_ADDITIONAL_ARGS", "value": arguments}],
                        "resources": {"limits": resources, "requests": resources},
                    }
                ]
            },
        },
    }


def ray_serve(registry: Registry) -> Values:
    """Return a Ray Serve configuration; callers ask for `BASE:ADAPTER`.

    The adapters' uris must share a folder in which each lies under its own name. Raises
    ConfigError where they do not, and for what else it cannot express.
    """
    _check_template(registry, "Ray Serve")
    _check_base(registry, "Ray Serve")
    folders = {(each.uri or "").removesuffix(f"/{each.name}") for each in registry.adapters}
    is_shared = all((each.uri or "").endswith(f"/{each.name}") for each in registry.adapters)
    if len(folders) != 1 or not is_shared:
        raise ConfigError(
            "adapters.yaml: Ray Serve loads adapters from one folder, each under its name; set "
            "every uri to FOLDER/NAME, such as s3://bucket/adapters/code"
        )
    base, serving = registry.base, registry.serving
    engine = {
        "enable_lora": True,
        "max_lora_rank": registry.max_rank,
        "max_loras": min(serving.max_adapters, len(registry.adapters)),
        "max_model_len": serving.max_length,
        "generation_config": "vllm",
        "tensor_parallel_size": serving.gpus,
        **({"revision": base.revision} if base.revision else {}),
    }
    llm: Values = {
        "model_loading_config": {"model_id": base.name, "model_source": base.source},
        "lora_config": {
            "dynamic_lora_loading_path": folders.pop(),
            "max_num_adapters_per_replica": serving.max_adapters,
        },
        "engine_kwargs": engine,
        "deployment_config": {
            "autoscaling_config": {
                "min_replicas": serving.replicas,
                "max_replicas": serving.max_replicas,
            }
        },
    }
    application = {
        "name": base.name,
        "route_prefix": "/",
        "import_path": "ray.serve.llm:build_openai_app",
        "args": {"llm_configs": [llm]},
    }
    return {"http_options": {"host": "127.0.0.1", "port": _PORT}, "applications": [application]}


def _check_template(registry: Registry, server: str) -> None:
    if registry.base.chat_template is not None:
        raise ConfigError(
            f"adapters.yaml: base.chat_template is a file, and {server} takes none; save it as "
            "chat_template.jinja beside the base's tokenizer and set base.chat_template: null"
        )


def _check_base(registry: Registry, server: str) -> None:
    if registry.base.is_relative:
        raise ConfigError(
            f"adapters.yaml: base.source is relative to the file, and {server} does not see that "
            "folder; write the path that it sees, or a hub id"
        )


def _double_dollars(value: object) -> object:
    """Return a value of a compose file with every dollar written twice: one begins a variable."""
    if isinstance(value, dict):
        return {key: _double_dollars(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_double_dollars(each) for each in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _mount(source: Path, target: str) -> Values:
    """Return a read-only mount."""
    place = source.as_posix() if source.is_absolute() else f"./{source.as_posix()}"
    return {
        "type": "bind",
        "source": place,
        "target": target,
        "read_only": True,
        "bind": {"create_host_path": False},
    }


_HEALTH = (
    f"import urllib.request as u; u.urlopen('http://127.0.0.1:{_PORT}/health', timeout=4).close()"
)

# vLLM knows its token from a variable only, and without one lets everybody in.
_WITH_TOKEN = (
    f'token="$(cat {_TOKEN_FILE})" && [ -n "$token" ] || '
    f'{{ echo "{_TOKEN_FILE}: holds no token; write one to the file token" >&2; exit 1; }}; '
    'VLLM_API_KEY="$token" exec vllm serve "$@"'
)
