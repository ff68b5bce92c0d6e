"""Requests to a server that speaks OpenAI's protocol: address, key, patience, clear errors."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from trillium.errors import BackendError, ConfigError
from trillium.generation.config import ServerConfig

A = TypeVar("A", bound=BaseModel)

# Busy and broken for the moment; anything else will not get better by asking again.
_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_NO_SUCH_PAGE = frozenset({404, 405, 501})
_LOOK_S = 10.0


class ServerConnection:
    """Posts to one server; safe to use from several threads."""

    def __init__(self, config: ServerConfig) -> None:
        """Remember the server; nothing is sent yet.

        Raises ConfigError when its key is missing, or nothing that a request can carry.
        """
        self.config = config
        self._api_key = _read_key(config)
        self._opener = urllib.request.build_opener(_NoRedirect)

    def post(self, page: str, request: dict[str, object], kind: type[A]) -> A:
        """Send a request and return its answer as `kind`; a busy server is asked again.

        Raises BackendError when there is no answer, or one that the protocol does not have.
        """
        return self._read(page, self._post_text(page, request), kind)

    def tell(self, page: str, request: dict[str, object]) -> None:
        """Send a request whose answer is of no interest. Raises BackendError when it is refused."""
        self._post_text(page, request)

    def check(self) -> None:
        """Ask once, without patience, whether the server answers and knows the model.

        A server without a list of models passes. Raises BackendError when none answers, ConfigError
        when it lists other models.
        """
        config, known = self.config, self.models()
        if known and config.model not in known:
            raise ConfigError(
                f"model={config.model}: {config.url} does not serve it (it serves "
                f"{', '.join(known)}); give one of these, or start the server with it"
            )

    def models(self) -> list[str]:
        """Return the models that the server lists, none where it has no list.

        Raises BackendError when it does not answer at once.
        """
        timeout_s = min(_LOOK_S, self.config.timeout_s)
        try:
            text = self._send("models", None, timeout_s=timeout_s)
        except _PassingError as error:
            raise self._give_up(error, 1) from error
        except _RefusedError as error:
            if error.status in _NO_SUCH_PAGE:
                return []
            raise BackendError(str(error)) from error
        return [model.id for model in self._read("models", text, _Models).data]

    def _post_text(self, page: str, request: dict[str, object]) -> bytes:
        body = json.dumps(request).encode()
        pause_s = self.config.backoff_s
        for attempt in range(self.config.n_retries + 1):
            try:
                return self._send(page, body, timeout_s=self.config.timeout_s)
            except _RefusedError as error:
                raise BackendError(str(error)) from error
            except _PassingError as error:
                if attempt == self.config.n_retries:
                    raise self._give_up(error, attempt + 1) from error
            time.sleep(pause_s)
            pause_s *= 2
        raise AssertionError("the last attempt returns or raises")

    def _send(self, page: str, body: bytes | None, *, timeout_s: float) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        url = f"{self.config.url.rstrip('/')}/{page}"
        try:
            request = urllib.request.Request(url, data=body, headers=headers)
            with self._opener.open(request, timeout=timeout_s) as reply:
                text: bytes = reply.read()
                return text
        except urllib.error.HTTPError as error:
            raise _explain_status(url, error) from error
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            raise _PassingError(str(error)) from error

    def _read(self, page: str, text: bytes, kind: type[A]) -> A:
        try:
            return kind.model_validate_json(text)
        except ValueError as error:
            raise BackendError(
                f"{self.config.url.rstrip('/')}/{page}: the answer is not what the protocol says: "
                f"{_first_fault(error)} (OpenAI's format was expected); check the address"
            ) from error

    def _give_up(self, error: Exception, n_attempts: int) -> BackendError:
        times = "1 attempt" if n_attempts == 1 else f"{n_attempts} attempts"
        return BackendError(
            f"{self.config.url}: {error} after {times} (an OpenAI-compatible server was expected); "
            "check that it runs"
        )


def _read_key(config: ServerConfig) -> str:
    """Return the key of a server, empty where none is named; no message ever holds it."""
    if not config.api_key_variable:
        return ""
    key = os.environ.get(config.api_key_variable, "").strip()
    if not key:
        raise ConfigError(
            f"api_key_variable={config.api_key_variable}: is not set (the key for "
            f"{config.url} was expected in it); export it"
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"api_key_variable={config.api_key_variable}: holds other characters than a key has "
            f"(printable ASCII was expected, for {config.url}); copy the key again"
        )
    return key


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follow nothing: the key would travel to whatever address the answer names."""

    def _refuse(self, *_asked: object) -> None:
        return None

    http_error_301 = http_error_302 = http_error_303 = _refuse  # type: ignore[assignment]
    http_error_307 = http_error_308 = _refuse  # type: ignore[assignment]


def _explain_status(url: str, error: urllib.error.HTTPError) -> Exception:
    """Return what a status other than 200 means for the request."""
    said = error.read(500).decode(errors="replace").strip()
    if error.code in _RETRIED_STATUS:
        return _PassingError(f"status {error.code}: {said}")
    remedy = "correct the request"
    if error.code in (401, 403):
        remedy = "name the variable of its key"
    elif target := error.headers.get("Location"):
        said = f"is elsewhere, at {target[:200]}"
        remedy = "give that address as url, if you trust it with the key"
    message = f"{url}: status {error.code}: {said} (200 was expected); {remedy}"
    return _RefusedError(message, error.code)


def _first_fault(error: ValueError) -> str:
    """Return what pydantic says about the first field that is wrong, or about the whole."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
    return str(error)


class _PassingError(Exception):
    """A failure that may be over by the next attempt."""


class _RefusedError(Exception):
    """An answer that will be the same next time."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]
