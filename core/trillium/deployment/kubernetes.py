"""Kubernetes files of one registry: vLLM, with adapters whose hashes are checked before it starts.

A kustomize base: `kubectl apply -k k8s`. The token is a secret that an operator creates; nothing
reaches the pods but the ports, and they reach nothing but name service and HTTPS.
"""

from trillium.deployment.manifests import ADAPTERS, Values, vllm_arguments
from trillium.deployment.registry import Registry
from trillium.errors import ConfigError

_PORT = 8000
_WITH_TOKEN = ': "${VLLM_API_KEY:?the secret holds no token}"; exec vllm serve "$@"'


def kubernetes(registry: Registry, *, chat_template: str | None = None) -> dict[str, Values]:
    """Return the files of the kustomize base by name; `chat_template` is the text of its file.

    Raises ConfigError for a base in a folder that pods do not have.
    """
    base, serving = registry.base, registry.serving
    if base.is_folder and not base.source.startswith(f"{ADAPTERS}/"):
        raise ConfigError(
            f"adapters.yaml: base.source is a folder that pods do not have ({base.source}); copy "
            f"the base to the claim {serving.claim!r} and write {ADAPTERS}/FOLDER, or name a hub id"
        )
    files = {
        "deployment.yaml": _deployment(registry),
        "service.yaml": _service(registry),
        "networkpolicy.yaml": _network_policy(registry),
        "autoscaler.yaml": _autoscaler(registry),
        "checksums.yaml": _checksums(registry, chat_template),
    }
    kustomization: Values = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": serving.namespace,
        "resources": list(files),
    }
    return {"kustomization.yaml": kustomization, **files}


def _named(registry: Registry, kind: str, version: str, spec: Values) -> Values:
    metadata: Values = {"name": registry.base.name, "labels": _labels(registry)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _labels(registry: Registry) -> dict[str, str]:
    return {"app.kubernetes.io/name": registry.base.name}


def _deployment(registry: Registry) -> Values:
    serving = registry.serving
    resources = {"nvidia.com/gpu": str(serving.gpus), "memory": serving.memory}
    adapters = {"name": "adapters", "mountPath": ADAPTERS, "readOnly": True}
    probe = {"httpGet": {"path": "/health", "port": _PORT}}
    closed: Values = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    check: Values = {
        "name": "check-adapters",
        "image": serving.vllm_image,
        "command": ["sha256sum", "--check", "--strict", "/checksums/sha256"],
        "volumeMounts": [adapters, {"name": "checksums", "mountPath": "/checksums"}],
        "securityContext": closed,
    }
    server: Values = {
        "name": "vllm",
        "image": serving.vllm_image,
        # vLLM would take an empty token for none, and let everybody in.
        "command": ["sh", "-c", _WITH_TOKEN, "vllm"],
        "args": vllm_arguments(registry),
        "ports": [{"name": "http", "containerPort": _PORT}],
        "env": [
            {"name": "HF_HOME", "value": "/models"},
            {
                "name": "VLLM_API_KEY",
                "valueFrom": {
                    "secretKeyRef": {"name": f"{registry.base.name}-token", "key": "token"}
                },
            },
        ],
        "resources": {"limits": resources, "requests": resources},
        "startupProbe": {**probe, "periodSeconds": 10, "failureThreshold": 90},
        "readinessProbe": {**probe, "periodSeconds": 5},
        "livenessProbe": {**probe, "periodSeconds": 20, "failureThreshold": 3},
        "volumeMounts": [
            adapters,
            {"name": "models", "mountPath": "/models"},
            {"name": "shm", "mountPath": "/dev/shm"},
            *([_template_mount()] if registry.base.chat_template else []),
        ],
        "securityContext": closed,
    }
    pod: Values = {
        "automountServiceAccountToken": False,
        "initContainers": [check],
        "containers": [server],
        "volumes": [
            {
                "name": "adapters",
                "persistentVolumeClaim": {"claimName": serving.claim, "readOnly": True},
            },
            {"name": "checksums", "configMap": {"name": f"{registry.base.name}-checksums"}},
            {"name": "models", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }
    spec: Values = {
        "replicas": serving.replicas,
        "selector": {"matchLabels": _labels(registry)},
        "template": {"metadata": {"labels": _labels(registry)}, "spec": pod},
    }
    return _named(registry, "Deployment", "apps/v1", spec)


def _template_mount() -> Values:
    return {"name": "checksums", "mountPath": "/config"}


def _service(registry: Registry) -> Values:
    spec: Values = {
        "selector": _labels(registry),
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
    }
    return _named(registry, "Service", "v1", spec)


def _network_policy(registry: Registry) -> Values:
    spec: Values = {
        "podSelector": {"matchLabels": _labels(registry)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"protocol": "TCP", "port": _PORT}]}],
        "egress": [
            {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
            {"ports": [{"protocol": "TCP", "port": 443}]},
        ],
    }
    return _named(registry, "NetworkPolicy", "networking.k8s.io/v1", spec)


def _autoscaler(registry: Registry) -> Values:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": registry.base.name}
    metric = {
        "type": "Pods",
        "pods": {
            "metric": {"name": "vllm:num_requests_waiting"},
            "target": {"type": "AverageValue", "averageValue": "5"},
        },
    }
    spec: Values = {
        "scaleTargetRef": target,
        "minReplicas": registry.serving.replicas,
        "maxReplicas": registry.serving.max_replicas,
        "metrics": [metric],
    }
    return _named(registry, "HorizontalPodAutoscaler", "autoscaling/v2", spec)


def _checksums(registry: Registry, chat_template: str | None) -> Values:
    """Return what `sha256sum --check` reads: a wrong adapter keeps the pod from starting."""
    lines = [
        f"{each.sha256}  {ADAPTERS}/{each.name}/adapter_model.safetensors\n"
        for each in registry.adapters
    ]
    metadata: Values = {"name": f"{registry.base.name}-checksums", "labels": _labels(registry)}
    content: Values = {"sha256": "".join(lines)}
    if chat_template is not None:
        content["chat_template.jinja"] = chat_template
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": content}
