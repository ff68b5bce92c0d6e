"""The policy of a run, loaded when something is due, as base or with the adapter it learned."""

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

from peft import PeftModel
from transformers import AutoConfig, PreTrainedTokenizerBase
from trillium.assets import ASSETS, cache_folder, find_model
from trillium.errors import ConfigError, DataError
from trillium.files import hash_json, hash_path
from trillium.generation import Completion, Generator, PromptBatch, SamplingConfig
from trillium.generation.in_process import TransformersGenerator
from trillium.policies.adapters import POLICY_ADAPTER, load_second_adapter, using_adapter
from trillium.policies.config import PolicyConfig
from trillium.policies.load import Policy, load_policy, load_tokenizer
from trillium.scoring.cache import LogpCache
from trillium.scoring.reference import open_reference
from trillium.training.align import AlignConfig, AlignResult, align
from trillium.trees import TokenTree

_ALIGNED = "aligned"


class Models:
    """Open the tokenizer, the policy before training, and the policy after it, once each."""

    def __init__(self, config: PolicyConfig, *, seed: int, max_rows: int) -> None:
        """Remember what to load; `max_rows` completions are decoded together."""
        self._config = config
        self._seed = seed
        self._max_rows = max_rows

    @cached_property
    def identity(self) -> str:
        """Name the starting policy by content: base, precision and adapter."""
        config = self._config
        asset, folder = ASSETS.get(config.base), Path(config.base).expanduser()
        if asset is not None:
            base = asset.wheel.sha256
        else:
            base = hash_path(folder) if folder.is_dir() else config.base
        adapter = config.adapter and hash_path(config.adapter)
        return hash_json([base, config.dtype, config.quantisation, adapter])

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer; this loads no weights."""
        if "policy" in self.__dict__:
            return self.policy.tokenizer
        return load_tokenizer(find_model(self._config.base))

    @cached_property
    def policy(self) -> Policy:
        """Return the policy with the adapter that training changes."""
        return load_policy(self._config, seed=self._seed)

    @cached_property
    def context_length(self) -> int | None:
        """Return how many tokens the model can attend to; None when it does not say."""
        config = AutoConfig.from_pretrained(find_model(self._config.base))
        length = getattr(config, "max_position_embeddings", None)
        return length if isinstance(length, int) else None

    def checked(
        self, prompts: Sequence[tuple[int, ...]], ids: Sequence[str], *, max_new_tokens: int
    ) -> Sequence[tuple[int, ...]]:
        """Return the prompts; raises when one leaves no room for its completion.

        That is a ConfigError when no prompt could, a DataError when this one does not.
        """
        limit = self.context_length
        if limit is not None and max_new_tokens >= limit:
            raise ConfigError(
                f"max_new_tokens = {max_new_tokens}: leaves no room for a prompt "
                f"({self._config.base} reads {limit} tokens in all); lower max_new_tokens"
            )
        for id, prompt in zip(ids, prompts, strict=True):
            if limit is not None and len(prompt) + max_new_tokens > limit:
                raise DataError(
                    f"task {id}: its prompt has {len(prompt)} tokens (with max_new_tokens = "
                    f"{max_new_tokens}, {self._config.base} takes {limit - max_new_tokens}); "
                    "shorten or drop the task, or lower max_new_tokens"
                )
        return prompts

    def before(self) -> Generator:
        """Return a generator for the policy that training starts from."""
        return self._generator(POLICY_ADAPTER if self._config.adapter else None)

    def train(self, config: AlignConfig, trees: Sequence[TokenTree], output: Path) -> AlignResult:
        """Align the policy's adapter; the reference is the policy that training starts from."""
        kind = "snapshot" if self._config.adapter else "base"
        policy = self.policy
        with LogpCache(cache_folder() / "reference-logps.sqlite") as cache:
            reference = open_reference(kind, policy.model, cache=cache, folder=policy.folder)
            return align(config, trees, policy.model, reference, output)

    def after(self, adapter: Path) -> Generator:
        """Return a generator for the adapter that training saved."""
        load_second_adapter(self.policy.model, adapter, _ALIGNED)
        return self._generator(_ALIGNED)

    def _generator(self, adapter: str | None) -> Generator:
        inner = TransformersGenerator(
            self.policy.model, self.policy.tokenizer, max_rows=self._max_rows
        )
        return _AdapterGenerator(inner, self.policy.model, adapter)


class _AdapterGenerator:
    """A generator that computes with one adapter, or with none."""

    def __init__(self, inner: Generator, model: PeftModel, adapter: str | None) -> None:
        self._inner = inner
        self._using = partial(using_adapter, model, adapter)

    def plan(
        self, prompts: Sequence[Sequence[int]], *, n_samples: int, seed: int
    ) -> tuple[PromptBatch, ...]:
        return self._inner.plan(prompts, n_samples=n_samples, seed=seed)

    def generate_batch(
        self, batch: PromptBatch, sampling: SamplingConfig
    ) -> list[list[Completion]]:
        with self._using():
            return self._inner.generate_batch(batch, sampling)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        n_samples: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        stop: Sequence[str],
        seed: int,
    ) -> list[list[Completion]]:
        with self._using():
            return self._inner.generate(
                prompts,
                n_samples=n_samples,
                temperature=temperature,
                top_p=top_p,
                max_new_tokens=max_new_tokens,
                stop=stop,
                seed=seed,
            )
