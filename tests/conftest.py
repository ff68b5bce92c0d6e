"""Settings that hold for every test: no network, one thread, a private cache, a worker each."""

import contextlib
import os
import subprocess

import pytest

# Set before anything imports a Hugging Face library: a test that needs the network is a mistake.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")


# What looks at the whole machine, or breaks its container engine, does so in one worker.
_OWN_MACHINE = "tests/security/"
# A page of the documentation is a journey of its own, and long.
_PAGE = "test_the_commands_of_a_page"
_LONG = (_PAGE, "tests/e2e/", "test_resume.py", _OWN_MACHINE)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several workers share the suite, keep modules together and begin with what is long."""
    if config.getoption("dist", "no") != "loadgroup":
        return
    modules = {item: item.nodeid.partition("::")[0] for item in items}
    with_engine = {modules[one] for one in items if "docker_image" in one.fixturenames}
    for item, module in modules.items():
        is_alone = module.startswith(_OWN_MACHINE) or module in with_engine
        group = item.nodeid if _PAGE in item.nodeid else "machine" if is_alone else module
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: not any(part in item.nodeid for part in _LONG))


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
