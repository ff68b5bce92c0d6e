"""From what to serve to a listening socket, and from a signal to a clean end."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trillium.assets import find_model
from trillium.deployment.registry import read_template
from trillium.errors import ConfigError
from trillium.policies.config import Precision, Quantisation
from trillium.policies.load import load_base, resolve_dtype
from trillium.policies.tokenizer import load_tokenizer, quiet_libraries
from trillium.serving.adapters import Adapters
from trillium.serving.app import ServerSettings, build_app
from trillium.serving.engine import Engine
from trillium.serving.jobs import TokenLimits
from trillium.serving.listening import (
    SERVE_TOKEN,
    check_exposure,
    listen,
    say_address,
)
from trillium.serving.loading import Loader
from trillium.serving.rows import RefusedError
from trillium.serving.running import make_server, run_until_told
from trillium.serving.sources import Sources

_MAX_LENGTH = 4096
_MAX_ADAPTERS = 16


@dataclass(frozen=True)
class LaunchSettings:
    """How to load and how much to take at once.

    What is None is as adapters.yaml says. Without one `max_length` is the model's, at most 4096,
    `max_adapters` 16, and the base goes by its own name.
    """

    dtype: Precision = "auto"
    quantisation: Quantisation = "none"
    max_rows: int = 8
    max_waiting: int = 64
    max_length: int | None = None
    max_new_tokens: int = 1024
    max_adapters: int | None = None
    token: str | None = None
    adapters_folder: Path | None = None
    base_name: str | None = None


@contextmanager
def open_engine(
    sources: Sources, settings: LaunchSettings
) -> Iterator[tuple[Engine, ServerSettings]]:
    """Load base and adapters and start the engine.

    Raises ConfigError for what cannot be served, BackendError where a base cannot be had.
    """
    quiet_libraries()
    source = find_model(sources.base)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = load_tokenizer(source, revision=sources.revision)
    template = None if sources.chat_template is None else read_template(sources.chat_template)
    if template is not None:
        tokenizer.chat_template = template
    dtype = resolve_dtype(settings.dtype, device)
    model = load_base(source, dtype, settings.quantisation, device, revision=sources.revision)
    name = settings.base_name or sources.base_name or _public_name(sources.base)
    if name in sources.adapters:
        raise ConfigError(f"{name}: is the name of the base and of an adapter; rename one")
    adapters = Adapters(model, tokenizer, base=sources.base, name=name)
    server = _server_settings(model, sources, settings, template)
    engine = Engine(
        adapters,
        max_rows=settings.max_rows,
        max_waiting=settings.max_waiting,
        end_ids=_end_ids(model, tokenizer),
    )
    with engine:
        loader = Loader(engine, None, server.max_adapters, chat_template=template)
        for each, folder in sources.adapters.items():
            try:
                loader.load(each, folder)
            except RefusedError as refusal:
                raise ConfigError(f"{folder}: {refusal}") from None
        yield engine, server


def serve_until_told(
    sources: Sources, settings: LaunchSettings, *, address: tuple[str, int], no_token: bool
) -> None:
    """Serve until SIGTERM or SIGINT, then answer what is under way and close.

    Raises ConfigError where other machines could come in without a token and nobody said so.
    """
    check_exposure(address[0], settings.token, SERVE_TOKEN, no_token=no_token)
    with listen(*address) as listener, open_engine(sources, settings) as (engine, server):
        names = ", ".join(each.name for each in engine.adapters.served())
        print(f"serve: {names}, on {say_address(listener)}", file=sys.stderr, flush=True)
        run_until_told(make_server(build_app(engine, server)), listener)


def _server_settings(
    model: PreTrainedModel, sources: Sources, settings: LaunchSettings, chat_template: str | None
) -> ServerSettings:
    max_adapters = settings.max_adapters or sources.max_adapters or _MAX_ADAPTERS
    return ServerSettings(
        limits=_limits(model, sources, settings),
        token=settings.token,
        adapters_folder=settings.adapters_folder,
        max_adapters=max(max_adapters, len(sources.adapters)),
        chat_template=chat_template,
    )


def _limits(model: PreTrainedModel, sources: Sources, settings: LaunchSettings) -> TokenLimits:
    known = getattr(model.config, "max_position_embeddings", None) or _MAX_LENGTH
    max_length = settings.max_length or min(known, sources.max_length or _MAX_LENGTH)
    if max_length > known:
        raise ConfigError(f"--max-length {max_length}: the model reads {known}; lower it")
    vocabulary = model.get_input_embeddings().weight
    assert isinstance(vocabulary, torch.Tensor)
    return TokenLimits(
        max_length, min(settings.max_new_tokens, max_length - 1), vocabulary.shape[0]
    )


def _public_name(base: str) -> str:
    """Return an asset's name or hub id as it is, and of a path its last part."""
    return Path(base).resolve().name if Path(base).is_dir() else base


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    configured = model.generation_config.eos_token_id if model.generation_config else None
    found = configured if isinstance(configured, list) else [configured]
    return frozenset(int(end) for end in [*found, tokenizer.eos_token_id] if end is not None)
