"""From settings to a listening socket, and from a signal to a clean end."""

from __future__ import annotations

import ipaddress
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

from trillium_sandbox.base import Backend
from trillium_sandbox.cache import ResultCache, name_backend
from trillium_sandbox.dispatch import Dispatcher
from trillium_sandbox.errors import RequestError, SandboxError
from trillium_sandbox.levels import LEVELS
from trillium_sandbox.service.app import ServiceSettings, build_app
from trillium_sandbox.service.connections import BoundedHttp

_GRACE_S = 25
"""How long a service that is told to stop goes on answering; container engines wait longer."""

_UNTAKEN_MS = 60_000
"""How long the kernel holds an answer that the client does not take, and its connection with it."""

_SWITCH_S = 0.001
"""How long the event loop may keep the interpreter from the thread that feeds the workers."""


def serve_until_told(
    open_backend: Callable[[], Backend],
    settings: ServiceSettings,
    *,
    address: tuple[str, int],
    no_token: bool,
    cache_path: Path | None,
    max_queue: int,
) -> None:
    """Serve until SIGTERM or SIGINT, then answer what is under way and close everything.

    Raises RequestError where other machines could come in without a token and nobody said so,
    SandboxError where the address, the backend or the cache cannot be had.
    """
    host = address[0]
    if settings.token is None and not no_token and not _is_loopback(host):
        raise RequestError(
            f"sandbox: --host {host} is reachable from other machines and there is no token; "
            "give --token-file, set TRILLIUM_SANDBOX_TOKEN, or add --no-token knowingly"
        )
    with _listen(*address) as listener, Dispatcher(open_backend, max_programs=max_queue) as queue:
        if cache_path is not None:
            queue.cache = ResultCache(
                cache_path, backend=name_backend(settings.backend, queue), level=queue.level
            )
        where = _say_address(listener)
        level = LEVELS[queue.level]
        server = _server(queue, settings)
        print(
            f"sandbox: {settings.backend}, level {level.number} ({level.name}), on {where}",
            file=sys.stderr,
            flush=True,
        )
        server.run(sockets=[listener])


def _server(dispatcher: Dispatcher, settings: ServiceSettings) -> uvicorn.Server:
    config = uvicorn.Config(
        build_app(dispatcher, settings),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        http=BoundedHttp,
        ws="none",
    )
    server = uvicorn.Server(config)

    # uvicorn raises its signals once more when it has ended; by then this one changes nothing.
    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    sys.setswitchinterval(_SWITCH_S)
    return server


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=512)
        # Connections inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNTAKEN_MS)
        return listener
    except (OSError, OverflowError) as error:
        raise SandboxError(
            f"sandbox: cannot listen on {host}:{port} ({error}); choose another --host or --port"
        ) from error


def _say_address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
