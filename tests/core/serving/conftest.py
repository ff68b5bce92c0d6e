"""A tiny base with two adapters on disk, and servers that answer over real sockets."""

import contextlib
import socket
import threading
from pathlib import Path

import httpx2
import pytest
import torch
from trillium.policies.adapters import add_adapter, save_adapter
from trillium.policies.config import LoraSettings
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium.serving.app import build_app
from trillium.serving.launch import LaunchSettings, open_engine
from trillium.serving.running import make_server
from trillium.serving.sources import Sources

BASE = "tiny/base"
TIMEOUT_S = 120


def write_adapter(folder: Path, *, seed: int, r: int = 4) -> Path:
    """Save an adapter that changes the tiny base a lot."""
    lora = LoraSettings(r=r, alpha=2 * r)
    policy = add_adapter(tiny_policy(), lora, base_name=BASE, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, 0.3, generator=generator)
    save_adapter(policy, folder)
    return folder


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base`, and `adapters` that holds one, two and three."""
    folder = tmp_path_factory.mktemp("shelf")
    tiny_policy().save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    for seed, name in enumerate(("one", "two", "three"), start=1):
        write_adapter(folder / "adapters" / name, seed=seed)
    return folder


@contextlib.contextmanager
def serving(shelf: Path, names=("one", "two"), chat_template: Path | None = None, **settings):
    """Serve the shelf's base with some of its adapters; yield a client of it."""
    adapters = {name: shelf / "adapters" / name for name in names}
    sources = Sources(str(shelf / "base"), adapters, chat_template=chat_template)
    token = settings.get("token")
    launch = LaunchSettings(**{"dtype": "float32", "base_name": "base", **settings})
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        open_engine(sources, launch) as (engine, server_settings),
    ):
        server = make_server(build_app(engine, server_settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx2.Client(base_url=url, headers=headers, timeout=TIMEOUT_S) as client:
                client.engine = engine
                yield client
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def client(shelf: Path):
    """A client of a server with two adapters, which may load more from the shelf."""
    with serving(shelf, adapters_folder=shelf / "adapters", max_adapters=4) as client:
        yield client


@pytest.fixture
def serve():
    """The context manager that starts a server."""
    return serving
