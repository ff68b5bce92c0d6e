"""Adapters that come and go at run time: from one allowed folder, under names that are free."""

import threading
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from trillium.deployment.check import tokenizer_folder
from trillium.errors import BackendError, ConfigError
from trillium.policies.tokenizer import load_tokenizer
from trillium.serving.adapters import Served
from trillium.serving.engine import Engine
from trillium.serving.rows import RefusedError


class Loader:
    """Load and unload adapters of one engine."""

    def __init__(
        self,
        engine: Engine,
        allowed: Path | None,
        max_adapters: int,
        *,
        chat_template: str | None = None,
    ) -> None:
        """Take adapters below `allowed` over HTTP, none without it, `max_adapters` at once.

        `chat_template` takes the place of what their own tokenizers have.
        """
        self._engine = engine
        self._allowed = None if allowed is None else allowed.resolve()
        self._max_adapters = max_adapters
        self._chat_template = chat_template
        self._loading = threading.Lock()

    def load_over_http(self, name: str, path: str) -> None:
        """Load what a caller names; raises RefusedError with the reason."""
        folder = self._inside(path)
        try:
            self.load(name, folder)
        except ConfigError as error:
            # Where things lie on this machine is none of the caller's business.
            adapters = self._engine.adapters
            sentence = str(error).replace(f"{self._allowed}/", "")
            sentence = sentence.replace(adapters.base, adapters.base_name)
            raise RefusedError(400, sentence, param="lora_path") from None
        except BackendError as error:
            raise RefusedError(503, str(error)) from None

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter as `name`; blocks until it can be asked for.

        Raises RefusedError when the name is taken or there are too many, ConfigError when the
        folder holds no adapter that can be served on this base.
        """
        with self._loading:
            adapters = self._engine.adapters
            if adapters.find(name) is not None:
                raise RefusedError(
                    400, f"{name!r} is served already; unload it first", param="lora_name"
                )
            if len(adapters.served()) > self._max_adapters:
                most = self._max_adapters
                raise RefusedError(409, f"{most} adapters are loaded (at most); unload one first")
            tokenizer = self._tokenizer(folder)
            key = self._engine.load(folder)
            adapters.publish(Served(name, key, tokenizer, folder))

    def unload(self, name: str) -> None:
        """Let an adapter go; completions under way end with it. Raises RefusedError."""
        gone = self._engine.adapters.withdraw(name)
        if gone is None or gone.key is None:
            raise RefusedError(404, f"adapter {name!r} is not loaded", param="lora_name")
        self._engine.retire(gone.key)

    def _tokenizer(self, folder: Path) -> PreTrainedTokenizerBase:
        base = self._engine.adapters.served()[0].tokenizer
        if tokenizer_folder(folder, Path()) != folder:
            return base
        own = load_tokenizer(str(folder))
        if len(own) != len(base):
            raise ConfigError(
                f"{folder}: its tokenizer has {len(own)} tokens and the base's {len(base)}; "
                "remove it, or copy the base's there"
            )
        if self._chat_template is not None:
            own.chat_template = self._chat_template
        return own

    def _inside(self, path: str) -> Path:
        if self._allowed is None:
            raise RefusedError(
                403, "loading over HTTP is off; start the server with --adapters-folder DIR"
            )
        if "\0" in path:
            raise RefusedError(400, "lora_path: holds a zero byte", param="lora_path")
        try:
            folder = (self._allowed / path).resolve()
            inner = [found.resolve() for found in folder.glob("*")]
        except (OSError, RuntimeError):
            raise RefusedError(400, "lora_path: cannot be followed", param="lora_path") from None
        if not folder.is_relative_to(self._allowed):
            raise RefusedError(
                403, "lora_path: is outside the folder this server loads from", param="lora_path"
            )
        if not all(found.is_relative_to(self._allowed) for found in inner):
            raise RefusedError(403, "lora_path: a link in it leads outside", param="lora_path")
        return folder
