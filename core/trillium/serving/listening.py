"""The address of a server: who may reach it, with which token, and its socket.

What is served is not known here: `trillium serve` and the applications' services share this.
"""

import ipaddress
import os
import socket
from pathlib import Path

from trillium.errors import BackendError, ConfigError

SERVE_TOKEN = "TRILLIUM_SERVE_TOKEN"
"""The environment variable with what callers of `trillium serve` must know."""


def read_token(file: Path | None, variable: str) -> str | None:
    """Return the token, from a file or an environment variable; all users see an argument.

    Raises ConfigError for a file that holds none, or a variable that is set to something else.
    """
    text = os.environ.get(variable, "") if file is None else _read_text(file)
    if file is None and not text:
        return None
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError(
            f"{file or variable}: holds no token (one line of printable ASCII); write one"
        )
    return token


def check_exposure(host: str, token: str | None, variable: str, *, no_token: bool) -> None:
    """Raise ConfigError where other machines could come in without a token and nobody said so."""
    if token is None and not no_token and not is_loopback(host):
        raise ConfigError(
            f"serve: --host {host} is reachable from other machines and there is no token; give "
            f"--token-file, set {variable}, or add --no-token knowingly"
        )


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 is any free one. Raises BackendError where it cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        raise BackendError(
            f"serve: cannot listen on {host}:{port} ({error}); choose another --host or --port"
        ) from error


def say_address(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _read_text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error}); give a file with a token") from error


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches a host; names other than localhost are not trusted."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
