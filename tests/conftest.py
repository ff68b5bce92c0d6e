"""Settings that hold for every test: no network, one thread, a private cache."""

import contextlib
import os
import subprocess

import pytest

# Set before anything imports a Hugging Face library: a test that needs the network is a mistake.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")


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
