"""Engines: what samples from a run's policy, as it starts and as training left it.

An engine is opened from the run file and loads nothing until a generator is asked for. Its
`identity` is empty where the policy alone decides what is sampled, as in this process and on Ray
with the batches that `max_rows` gives.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

from trillium.errors import BackendError, ConfigError
from trillium.files import hash_json, hash_path
from trillium.generation.config import (
    GenerationConfig,
    RayConfig,
    ServedPolicyConfig,
    VllmConfig,
    batches_identity,
)
from trillium.generation.connection import ServerConnection
from trillium.generation.interface import Generator
from trillium.generation.server import ServerGenerator
from trillium.policies.run_policy import RunPolicy

_TRAINED = "aligned"


@runtime_checkable
class Engine(Protocol):
    """Samples from a policy; `samples_adapters` says whether from what training saved, too."""

    identity: str
    samples_adapters: bool

    def start(self) -> Generator:
        """Return a generator for the policy that the run file names."""
        ...

    def trained(self, adapter: Path) -> Generator:
        """Return a generator for the adapter in a folder; only where `samples_adapters`."""
        ...

    def close(self) -> None:
        """Give back memory and processes; a generator asked for later opens them again."""
        ...


def open_engine(
    generation: GenerationConfig, ray: RayConfig | None, policy: RunPolicy, *, max_rows: int
) -> Engine:
    """Return the engine that a run file asks for, at most `max_rows` completions together.

    Raises ConfigError for what is not installed or does not go together.
    """
    is_on_ray = ray is not None and ray.n_samplers > 0
    if isinstance(generation, VllmConfig):
        if is_on_ray:
            raise ConfigError(
                "ray.n_samplers: actors sample with transformers (generation.backend is vllm); "
                "serve vLLM and set generation.backend=server, or set ray.n_samplers=0"
            )
        from trillium.generation.vllm_engine import VllmEngine

        return VllmEngine(generation, policy, max_rows=max_rows)
    if isinstance(generation, ServedPolicyConfig):
        return ServerEngine(generation, policy)
    if ray is not None and is_on_ray:
        from trillium.generation.on_ray import RayEngine

        return RayEngine(ray, policy, max_rows=max_rows, batch_rows=generation.batch_rows)
    return TransformersEngine(policy, max_rows=max_rows, batch_rows=generation.batch_rows)


class TransformersEngine:
    """Samples from the loaded policy in this process."""

    samples_adapters = True

    def __init__(self, policy: RunPolicy, *, max_rows: int, batch_rows: int | None = None) -> None:
        """Use `policy`, which is loaded when a generator is asked for."""
        self._policy, self._max_rows, self._batch_rows = policy, max_rows, batch_rows
        self.identity = batches_identity(batch_rows)

    def start(self) -> Generator:
        """Return a generator for the policy that training starts from."""
        from trillium.policies.adapters import POLICY_ADAPTER

        return self._generator(POLICY_ADAPTER if self._policy.config.adapter else None)

    def trained(self, adapter: Path) -> Generator:
        """Return a generator for the adapter in a folder."""
        from trillium.policies.adapters import load_second_adapter

        load_second_adapter(self._policy.loaded.model, adapter, _TRAINED)
        return self._generator(_TRAINED)

    def close(self) -> None:
        """Do nothing: the policy is the trainer's as well."""

    def _generator(self, adapter: str | None) -> Generator:
        from trillium.generation.in_process import TransformersGenerator
        from trillium.generation.with_adapter import AdapterGenerator

        loaded = self._policy.loaded
        inner = TransformersGenerator(
            loaded.model,
            loaded.tokenizer,
            max_rows=self._max_rows,
            batch_rows=self._batch_rows,
        )
        return AdapterGenerator(inner, loaded.model, adapter)


class ServerEngine:
    """Asks a server, for its `model` or for adapters that it loads by their folder."""

    def __init__(self, config: ServedPolicyConfig, policy: RunPolicy) -> None:
        """Take the tokenizer from `policy`; nothing is sent yet."""
        self._config, self._policy = config, policy
        self._loaded = ""  # the adapter that this engine put there: servers hold only so many
        self.samples_adapters = config.loads_adapters
        # Address, key and patience may change while a run is under way; what they give does not.
        again = [] if config.returns_token_ids else ["encoded again"]
        self.identity = hash_json(["server", config.model, config.max_rows, *again])

    def start(self) -> Generator:
        """Return a generator for the server's model. Raises when it is not there."""
        ServerConnection(self._config).check()
        return ServerGenerator(self._config, self._policy.tokenizer)

    def trained(self, adapter: Path) -> Generator:
        """Return a generator for the adapter in a folder, which the server reads itself.

        The adapter that this engine loaded before is unloaded.
        """
        name = f"trillium-{hash_path(adapter)[:12]}"
        connection = ServerConnection(self._config)
        known = connection.models()
        if self._loaded != name:
            self._unload(connection, known)
        if name not in known:
            place: dict[str, object] = {"lora_name": name, "lora_path": str(adapter.resolve())}
            connection.tell("load_lora_adapter", place)
        # One that is there already was left by a run that was killed: the name is its content's.
        self._loaded = name
        return ServerGenerator(self._config, self._policy.tokenizer, model=name)

    def close(self) -> None:
        """Unload what this engine loaded; the server is somebody else's."""
        if self._loaded:
            connection = ServerConnection(self._config)
            with suppress(BackendError):  # a server that is gone holds nothing
                self._unload(connection, connection.models())

    def _unload(self, connection: ServerConnection, known: Sequence[str]) -> None:
        name, self._loaded = self._loaded, ""
        if name in known:
            connection.tell("unload_lora_adapter", {"lora_name": name})
