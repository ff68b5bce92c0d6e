"""Settings that hold for every test: no network, one thread, one seed, a worker each."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from xdist.scheduler import LoadScopeScheduling

# Set before anything imports a Hugging Face library: a test that needs the network is a mistake.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")


# What looks at the whole machine, or breaks its container engine, is done by one worker.
_ONE_MACHINE = (
    "tests/security/",
    *(f"tests/sandboxes/test_{name}" for name in ("container", "deploy", "docker", "levels")),
)
# A page of the documentation is a journey of its own, and long.
_PAGE = "test_the_commands_of_a_page"
_LONG = (_PAGE, "tests/e2e/", "test_resume.py", *_ONE_MACHINE)


class _Shares(LoadScopeScheduling):
    """Give workers whole modules, whose fixtures are costly, and pages one by one."""

    def _split_scope(self, nodeid: str) -> str:
        if _PAGE in nodeid:
            return nodeid
        return "machine" if nodeid.startswith(_ONE_MACHINE) else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Share the suite between workers by `_Shares`."""
    return _Shares(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where workers share the suite, begin with what is long."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: not any(part in item.nodeid for part in _LONG))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seed what draws numbers without being given a generator, such as a new adapter's weights."""
    random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def docker_image() -> str:
    """Build the sandbox's image where an engine answers; skip, or in CI fail, where none does."""
    from trillium_sandbox.docker import daemon, sources
    from trillium_sandbox.errors import SandboxError

    try:
        with contextlib.closing(daemon.connect(timeout_s=5)):
            pass
    except SandboxError as error:
        if os.environ.get("TRILLIUM_NEEDS_DOCKER") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))
    subprocess.run([sources.image_folder() / "build"], check=True)
    return sources.IMAGE


@pytest.fixture(scope="module")
def ray_head() -> Iterator[Any]:
    """Start a head node of Ray that tells nobody anything, and leave nothing of it behind."""
    import psutil
    import ray
    from ray.cluster_utils import Cluster

    # Ray binds sockets inside: their paths must stay short.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    (folder / "ray").mkdir()
    settings = {"RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ.update(settings)
    node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    processes = psutil.Process().children(recursive=True)
    ray.shutdown()
    cluster.shutdown()
    left = psutil.wait_procs(processes, timeout=20)[1]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    for name in settings:
        del os.environ[name]
    shutil.rmtree(folder)
    assert not psutil.wait_procs(left, timeout=20)[1]


@pytest.fixture(scope="session")
def check_compose() -> Callable[..., None]:
    """Return a function by which Compose itself reads a file; skip where there is no Compose."""
    plugin, old = ["docker", "compose"], ["docker-compose"]
    is_there = (
        shutil.which("docker")
        and not subprocess.run([*plugin, "version"], capture_output=True, check=False).returncode
    )
    if not is_there and not shutil.which("docker-compose"):
        pytest.skip("neither docker's compose plugin nor docker-compose is installed")

    def check(file: Path, *options: str) -> None:
        command = [*(plugin if is_there else old), "--file", str(file), *options, "config"]
        if not is_there:
            file.write_text(yaml.safe_dump(_without_news(yaml.safe_load(file.read_text()))))
        command.append("--quiet")
        checked = subprocess.run(
            command, cwd=file.parent, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stderr

    return check


def _without_news(values: dict[str, Any]) -> dict[str, Any]:
    """Return a Compose file less what version 1 does not know: project names, unmade host paths."""
    values.pop("name", None)
    for service in values["services"].values():
        for volume in service.get("volumes", ()):
            if isinstance(volume, dict):
                volume.pop("bind", None)
    return values
