"""`load_tokenizer`, and what loading a tokenizer and loading a model have in common."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from trillium.errors import BackendError, ConfigError

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


def load_tokenizer(source: str, *, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder or hub id; `revision` is a commit of the hub, None its main.

    Raises ConfigError when there is none, BackendError when the hub cannot be reached.
    """
    quiet_libraries()
    folder = Path(source)
    if folder.is_dir() and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ConfigError(
            f"{source}: holds no tokenizer (needs tokenizer.json or tokenizer.model); "
            "copy the tokenizer files of the model into the folder"
        )
    with explain_loading(source, "tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, revision=revision or "main", local_files_only=folder.is_dir()
        )
    return tokenizer


def quiet_libraries() -> None:
    """Keep progress bars and remarks of libraries off the terminal."""
    transformers_logging.disable_progress_bar()
    for name in (
        "transformers.configuration_utils",
        "transformers.modeling_utils",
        "transformers.distributed.tensor_parallel",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def explain_loading(source: str, what: str) -> Iterator[None]:
    """Raise ConfigError or BackendError, in one sentence, for what a library says on loading."""
    try:
        yield
    except ConfigError:
        raise
    except (OSError, ValueError, ImportError, KeyError, SafetensorError) as error:
        if _is_unreachable(error):
            raise BackendError(
                f"{source}: the {what} is not on this disk and the hub cannot be reached; check "
                "the network and HF_HUB_OFFLINE, or name a folder that holds it"
            ) from error
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
        remedy = (
            "check the files of the folder"
            if Path(source).is_dir()
            else "check the id and the network, or give a folder"
        )
        raise ConfigError(f"{source}: the {what} cannot be loaded ({reason}); {remedy}") from error


def _is_unreachable(error: BaseException) -> bool:
    """Tell whether a hub was asked and gave no answer, as opposed to not knowing the id."""
    current: BaseException | None = error
    while current is not None and not isinstance(current, LocalEntryNotFoundError):
        current = current.__cause__ or current.__context__
    return current is not None
