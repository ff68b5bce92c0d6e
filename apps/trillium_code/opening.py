"""What a run file's `policy`, `generation`, `sandbox` and `ray` together open."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from trillium.errors import ConfigError
from trillium_sandbox import Backend

from trillium_code.config import CodeConfig
from trillium_code.models import Models


def open_models(config: CodeConfig) -> Models:
    """Return the models of a run, none of them loaded yet.

    Raises ConfigError for an engine that is not installed or does not fit the policy.
    """
    return Models(
        config.policy,
        seed=config.seed,
        max_rows=config.max_rows,
        generation=config.generation,
        ray=config.ray,
    )


def open_sandbox(config: CodeConfig) -> Backend:
    """Start the sandbox: here, or with `ray` on every node of the cluster.

    Raises SandboxError when a machine cannot isolate enough.
    """
    if config.ray is None:
        return config.sandbox.open()
    from trillium_sandbox.cluster import ClusterBackend

    sandbox = config.sandbox
    return ClusterBackend(
        backend=sandbox.backend,
        min_level=sandbox.min_level,
        n_workers=sandbox.n_workers,
        allow_unsafe=sandbox.allow_unsafe,
        runtime=sandbox.runtime,
        batch_programs=config.ray.batch_programs,
    )


@contextmanager
def opened_cluster(config: CodeConfig) -> Iterator[None]:
    """Be connected to the cluster of `ray`, where a run file has one.

    Raises ConfigError when Ray is not installed, BackendError when no cluster answers.
    """
    if config.ray is None:
        yield
        return
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            'ray: the package is not installed; pip install "trillium[ray]", or remove `ray`'
        )
    from trillium.generation.on_ray import connected

    with connected(config.ray.address):
        yield
