"""The policy of a run, loaded when something is due, as base or with the adapter it learned."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trillium.errors import ConfigError, DataError
from trillium.files import hash_json
from trillium.generation import Generator
from trillium.generation.config import GenerationConfig, RayConfig, TransformersConfig
from trillium.generation.engines import Engine, TransformersEngine, open_engine
from trillium.policies.config import LoraSettings, PolicyConfig
from trillium.policies.run_policy import RunPolicy
from trillium.scoring.cache import open_cache
from trillium.training.config import AlignConfig
from trillium.trees import TokenTree

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trillium.policies.load import Policy
    from trillium.training.align import AlignResult


@dataclass(frozen=True)
class Source:
    """Say what is sampled from: a name by content, and how to open it when there is work."""

    hash: str
    open: Callable[[], Generator]


class Models:
    """Open the tokenizer, the policy before training, and the policy after it, once each.

    `exploring` samples for training, where the run file says. `before` and `after` are compared, so
    both come from one engine: that one where it can take what training saved, else this process.
    """

    def __init__(
        self,
        config: PolicyConfig,
        *,
        seed: int,
        max_rows: int,
        generation: GenerationConfig | None = None,
        ray: RayConfig | None = None,
    ) -> None:
        """Remember what to load; `max_rows` completions are decoded together.

        Without `generation`, this process samples. Raises ConfigError for an engine that is not
        installed or does not fit the policy.
        """
        self._policy = RunPolicy(config, seed=seed)
        self._max_rows = max_rows
        self._asked = (generation or TransformersConfig(), ray)
        self._here = TransformersEngine(self._policy, max_rows=max_rows)
        self._engine: Engine = self._here
        if generation is not None:
            self._engine = open_engine(generation, ray, self._policy, max_rows=max_rows)
        self._is_first_round = True

    def after_round(self, adapter: Path) -> "Models":
        """Return the models of the next round, which starts from the adapter of this one."""
        self.close()
        update = {"adapter": adapter, "lora": LoraSettings()}
        config = self._policy.config.model_copy(update=update)
        generation, ray = self._asked
        models = Models(
            config,
            seed=self._policy.seed,
            max_rows=self._max_rows,
            generation=generation,
            ray=ray,
        )
        models._is_first_round = False
        return models

    def close(self) -> None:
        """Give back what the engine holds beside the policy; it opens again when needed."""
        self._engine.close()

    @property
    def identity(self) -> str:
        """Name the starting policy by content: base, precision and adapter."""
        return self._policy.identity

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """Return the tokenizer; this loads no weights."""
        return self._policy.tokenizer

    @property
    def policy(self) -> "Policy":
        """Return the policy with the adapter that training changes."""
        return self._policy.loaded

    def fitting(
        self, prompts: Sequence[tuple[int, ...]], ids: Sequence[str], *, max_new_tokens: int
    ) -> list[bool]:
        """Say of each prompt whether it leaves room for a completion.

        Raises ConfigError when no prompt could, DataError when none of these does.
        """
        limit, base = self._policy.context_length, self._policy.config.base
        if limit is None:
            return [True] * len(prompts)
        if max_new_tokens >= limit:
            raise ConfigError(
                f"max_new_tokens = {max_new_tokens}: leaves no room for a prompt "
                f"({base} reads {limit} tokens in all); lower max_new_tokens"
            )
        fits = [len(prompt) + max_new_tokens <= limit for prompt in prompts]
        if not any(fits):
            raise DataError(
                f"task {ids[0]}: its prompt has {len(prompts[0])} tokens (with max_new_tokens = "
                f"{max_new_tokens}, {base} takes {limit - max_new_tokens}), and no "
                "other is shorter than that; shorten the tasks, or lower max_new_tokens"
            )
        return fits

    @property
    def exploring(self) -> Source:
        """Return the policy that the round starts from, as its programs and tests are sampled."""
        engine = self._engine
        if not engine.samples_adapters and not self._is_first_round:
            engine = self._here
        return self._source(engine, self.identity, self._opener(engine))

    @property
    def before(self) -> Source:
        """Return the policy that the run starts from, as it is evaluated."""
        engine = self._comparing
        return self._source(engine, self.identity, self._opener(engine))

    def after(self, adapter: Path, hash: str) -> Source:
        """Return the adapter that training saved, as it is evaluated; `hash` names its content."""
        engine = self._comparing
        return self._source(engine, hash, lambda: engine.trained(adapter))

    def train(self, config: AlignConfig, trees: Sequence[TokenTree], output: Path) -> "AlignResult":
        """Align the policy's adapter; the reference is the policy that training starts from."""
        from trillium.scoring.reference import open_reference
        from trillium.training.align import align

        self.close()
        kind = "snapshot" if self._policy.config.adapter else "base"
        policy = self.policy
        with open_cache() as cache:
            reference = open_reference(kind, policy.model, cache=cache, folder=policy.folder)
            return align(config, trees, policy.model, reference, output)

    @property
    def _comparing(self) -> Engine:
        return self._engine if self._engine.samples_adapters else self._here

    def _opener(self, engine: Engine) -> Callable[[], Generator]:
        """Return what opens the starting policy; after a round, only its folder names it."""
        adapter = self._policy.config.adapter
        if self._is_first_round or engine is self._here or adapter is None:
            return engine.start
        return lambda: engine.trained(adapter)

    def _source(self, engine: Engine, policy: str, open: Callable[[], Generator]) -> Source:
        return Source(hash_json([policy, engine.identity]) if engine.identity else policy, open)
