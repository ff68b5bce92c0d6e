"""Run an application under uvicorn until a signal says otherwise."""

import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

_GRACE_S = 25
"""How long a server that is told to stop goes on answering; container engines wait longer."""


def make_server(app: FastAPI) -> uvicorn.Server:
    """Return a uvicorn server that can run in any thread."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        ws="none",
    )
    return uvicorn.Server(config)


def run_until_told(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, then answer what is under way."""

    # uvicorn raises its signals once more when it has ended; by then this one changes nothing.
    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.run(sockets=[listener])
