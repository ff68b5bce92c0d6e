"""Sampling on actors of a Ray cluster, each with a policy of its own.

A batch carries its seed, so it does not matter which actor draws it, nor whether it is drawn again
after an actor was lost: the completions are those of one process, as far as machines compute alike.
"""

import logging
import os
import socket
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError

from trillium.errors import BackendError, ConfigError, DataError
from trillium.generation.config import RayConfig, batches_identity
from trillium.generation.interface import (
    BatchedGenerator,
    Completion,
    Generator,
    PromptBatch,
    SamplingConfig,
)
from trillium.policies.config import LoraSettings, PolicyConfig
from trillium.policies.run_policy import RunPolicy

_N_AHEAD = 2
"""Batches an actor is sent: one that it draws, one that waits."""

_MAX_RESTARTS = 3

_KNOCK_S = 10.0

AdapterFiles = dict[str, bytes]


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Be connected to the cluster at `address`, unless this process is connected already.

    Raises BackendError when no cluster answers.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise BackendError(
            f"ray.address={address}: no cluster answers ({reason}); start one with "
            "`ray start --head`, or set ray.address=local to start one here"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError when nobody listens at HOST:PORT; Ray itself would try for minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()


class Sampler:
    """What lives in an actor: a policy, loaded at its first batch."""

    def __init__(self, config: PolicyConfig, seed: int, max_rows: int) -> None:
        """Remember what to load; `max_rows` completions are decoded together."""
        self._config, self._seed, self._max_rows = config, seed, max_rows
        self._generator: Generator | None = None

    @ray.method
    def generate(
        self, batch: PromptBatch, sampling: SamplingConfig, adapter: AdapterFiles
    ) -> list[list[Completion]]:
        """Draw one batch; `adapter` are the files of one, always the same, or none for the base."""
        self._generator = self._generator or self._load(adapter)
        return self._generator.generate_batch(batch, sampling)

    def _load(self, adapter: AdapterFiles) -> Generator:
        config = self._config
        if not adapter:
            return self._open(config)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in adapter.items():
                (Path(folder) / name).write_bytes(content)
            placed = config.model_copy(update={"adapter": Path(folder), "lora": LoraSettings()})
            return self._open(placed)

    def _open(self, config: PolicyConfig) -> Generator:
        from trillium.generation.engines import TransformersEngine

        policy = RunPolicy(config, seed=self._seed)
        return TransformersEngine(policy, max_rows=self._max_rows).start()


class RayEngine:
    """Samples on actors, which stay for as long as the same weights are asked for."""

    samples_adapters = True

    def __init__(
        self,
        config: RayConfig,
        policy: RunPolicy,
        *,
        max_rows: int,
        batch_rows: int | None = None,
    ) -> None:
        """Start nothing yet; an actor decodes `max_rows` completions together.

        It is sent `batch_rows` at a time, by default as many.
        """
        self._config, self._policy, self._max_rows = config, policy, max_rows
        self._batch_rows = batch_rows or max_rows
        self.identity = batches_identity(batch_rows)
        self._adapter: Path | None = None
        self._files: ray.ObjectRef[AdapterFiles] | None = None
        self._actors: list[ActorHandle[Sampler]] = []

    def start(self) -> Generator:
        """Return a generator for the policy that the run file names."""
        return self._generator(self._policy.config.adapter)

    def trained(self, adapter: Path) -> Generator:
        """Return a generator for the adapter in a folder; its files travel to the actors."""
        return self._generator(adapter)

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors, self._files = [], None

    def _generator(self, adapter: Path | None) -> "RayGenerator":
        if adapter != self._adapter or not self._actors:
            self.close()
            self._adapter = adapter
            self._actors = self._start_actors()
        # An actor that is started again asks for the adapter once more, so it stays in the store.
        self._files = self._files or ray.put({} if adapter is None else _read_adapter(adapter))
        return RayGenerator(self._actors, self._files, max_rows=self._batch_rows)

    def _start_actors(self) -> list[ActorHandle[Sampler]]:
        if not ray.is_initialized():
            raise BackendError("ray: is not connected; open the run within `connected(address)`")
        config = self._config
        self._check_room()
        base = self._policy.config.model_copy(update={"adapter": None})
        remote = ray.remote(Sampler).options(
            num_cpus=config.cpus_per_sampler,
            num_gpus=config.gpus_per_sampler,
            max_restarts=_MAX_RESTARTS,
            max_task_retries=_MAX_RESTARTS,
            max_pending_calls=_N_AHEAD + 1,
        )
        actors = [
            remote.remote(base, self._policy.seed, self._max_rows) for _ in range(config.n_samplers)
        ]
        return [actor for actor in actors if isinstance(actor, ActorHandle)]

    def _check_room(self) -> None:
        """Raise ConfigError when the cluster could never start all actors: Ray would wait."""
        config, total = self._config, ray.cluster_resources()  # type: ignore[no-untyped-call]
        for name, each in (("CPU", config.cpus_per_sampler), ("GPU", config.gpus_per_sampler)):
            if config.n_samplers * each > total.get(name, 0):
                raise ConfigError(
                    f"ray.n_samplers={config.n_samplers}: needs {config.n_samplers * each:g} {name}"
                    f" (the cluster has {total.get(name, 0):g}); lower it, or "
                    f"ray.{name.lower()}s_per_sampler"
                )


class RayGenerator(BatchedGenerator):
    """Continue prompts on a set of actors."""

    def __init__(
        self,
        actors: Sequence[ActorHandle[Sampler]],
        adapter: "ray.ObjectRef[AdapterFiles]",
        *,
        max_rows: int,
    ) -> None:
        """Give work to `actors`, of which there is at least one; all of them load `adapter`."""
        super().__init__(max_rows=max_rows)
        self._actors, self._adapter = actors, adapter

    def generate_batch(
        self, batch: PromptBatch, sampling: SamplingConfig
    ) -> list[list[Completion]]:
        """Return `batch.n_samples` completions per prompt."""
        return next(iter(self.generate_batches([batch], sampling)))

    def generate_batches(
        self, batches: Sequence[PromptBatch], sampling: SamplingConfig
    ) -> Iterator[list[list[Completion]]]:
        """Yield the completions of each batch, in order; never more than two wait on an actor.

        Raises what an actor raised, BackendError when one is lost for good.
        """
        order: deque[ray.ObjectRef[list[list[Completion]]]] = deque()
        loads: dict[ray.ObjectRef[list[list[Completion]]], int] = {}
        for batch in batches:
            if len(order) == _N_AHEAD * len(self._actors):
                yield _take(order.popleft())
            loads = {answer: place for answer, place in loads.items() if not _is_there(answer)}
            busy = list(loads.values())
            place = min(range(len(self._actors)), key=busy.count)
            order.append(self._actors[place].generate.remote(batch, sampling, self._adapter))
            loads[order[-1]] = place
        while order:
            yield _take(order.popleft())


def _is_there(answer: "ray.ObjectRef[list[list[Completion]]]") -> bool:
    return bool(ray.wait([answer], timeout=0)[0])


def _take(answer: "ray.ObjectRef[list[list[Completion]]]") -> list[list[Completion]]:
    try:
        return ray.get(answer)
    except RayTaskError as error:
        if isinstance(error.cause, BackendError | ConfigError | DataError):
            raise error.cause from error
        raise
    except RayActorError as error:
        raise BackendError(
            f"ray: an actor that samples was lost {_MAX_RESTARTS + 1} times; what was drawn is "
            "kept, see Ray's log for the reason (often memory), then run the same command again"
        ) from error


def _read_adapter(folder: Path) -> AdapterFiles:
    """Return the files of an adapter, which nodes without this disk need as well."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
