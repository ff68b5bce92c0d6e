"""Sampling with vLLM in this process: its own copy of the base, and any adapter.

vLLM is nobody's dependency here: it pins transformers and torch, so it is used where it is
installed. Its engine lives in a process of its own until `close`, which training asks for. Equal
seeds give equal samples only as far as vLLM keeps that.
"""

import gc
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trillium.assets import find_model
from trillium.errors import BackendError, ConfigError
from trillium.files import hash_json
from trillium.generation.config import VllmConfig
from trillium.generation.interface import (
    BatchedGenerator,
    Completion,
    Finish,
    Generator,
    PromptBatch,
    SamplingConfig,
)
from trillium.policies.config import PolicyConfig
from trillium.policies.run_policy import RunPolicy

if TYPE_CHECKING:
    from vllm import LLM  # type: ignore[import-not-found]
    from vllm.lora.request import LoRARequest  # type: ignore[import-not-found]

# vLLM takes no other ranks.
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_DTYPES = {"auto": "auto", "bfloat16": "bfloat16", "float32": "float32"}


class VllmEngine:
    """Samples with vLLM from a base and the adapters that training saves."""

    samples_adapters = True

    def __init__(self, config: VllmConfig, policy: RunPolicy, *, max_rows: int) -> None:
        """Start nothing yet. Raises ConfigError where vLLM is missing or cannot hold the policy."""
        if importlib.util.find_spec("vllm") is None:
            raise ConfigError(
                "generation.backend=vllm: vLLM is not installed; install it beside this package, "
                "serve it elsewhere and set generation.backend=server, or set "
                "generation.backend=transformers"
            )
        if policy.config.quantisation != "none":
            raise ConfigError(
                f"generation.backend=vllm: samples from full weights (policy.quantisation is "
                f"{policy.config.quantisation}); set generation.backend=transformers"
            )
        self._config, self._policy, self._max_rows = config, policy, max_rows
        self._llm: LLM | None = None
        self._n_adapters = 0
        self.identity = hash_json(["vllm", config.max_length, max_rows])

    def start(self) -> Generator:
        """Return a generator for the policy that the run file names."""
        return self._generator(self._policy.config.adapter)

    def trained(self, adapter: Path) -> Generator:
        """Return a generator for the adapter in a folder."""
        return self._generator(adapter)

    def close(self) -> None:
        """End vLLM's engine and give its memory back."""
        if self._llm is None:
            return
        self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        gc.collect()

    def _generator(self, adapter: Path | None) -> Generator:
        from vllm.lora.request import LoRARequest

        llm = self._llm = self._llm or self._open()
        request = None
        if adapter is not None:
            self._n_adapters += 1  # vLLM knows adapters by number and keeps what it has loaded
            name = f"adapter-{self._n_adapters}"
            request = LoRARequest(name, self._n_adapters, str(adapter.resolve()))
        return VllmGenerator(llm, request, max_rows=self._max_rows)

    def _open(self) -> "LLM":
        from vllm import LLM

        policy, config = self._policy.config, self._config
        try:
            return LLM(
                model=find_model(policy.base),
                dtype=_DTYPES[policy.dtype],
                max_model_len=config.max_length,
                gpu_memory_utilization=config.memory_share,
                enforce_eager=config.is_eager,
                enable_lora=True,
                max_lora_rank=_lora_rank(policy),
                enable_prefix_caching=True,
                seed=self._policy.seed,
            )
        except (RuntimeError, ValueError, OSError) as error:
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise BackendError(
                f"generation.backend=vllm: the engine does not start ({reason}); lower "
                "generation.memory_share or max_length, or set generation.backend=transformers"
            ) from error


class VllmGenerator(BatchedGenerator):
    """Continue prompts with vLLM; a batch is one call, whose rows vLLM schedules itself."""

    def __init__(self, llm: "LLM", adapter: "LoRARequest | None", *, max_rows: int) -> None:
        """Sample from the base, or from `adapter`, `max_rows` completions a call."""
        super().__init__(max_rows=max_rows)
        self._llm, self._adapter = llm, adapter

    def generate_batch(
        self, batch: PromptBatch, sampling: SamplingConfig
    ) -> list[list[Completion]]:
        """Return `batch.n_samples` completions per prompt; `sampling.n_samples` is not read."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt  # type: ignore[import-not-found]

        # vLLM draws sample i of a prompt with seed + i; no two of a batch may share their noise.
        params = [
            SamplingParams(
                n=batch.n_samples,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                max_tokens=sampling.max_new_tokens,
                stop=list(sampling.stop),
                include_stop_str_in_output=sampling.keep_stop,
                seed=(batch.seed + place * batch.n_samples) % 2**31,
            )
            for place in range(len(batch.prompts))
        ]
        asked = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in batch.prompts]
        answers = self._llm.generate(asked, params, lora_request=self._adapter, use_tqdm=False)
        return [
            [_completion(one.token_ids, one.text, one.finish_reason) for one in answer.outputs]
            for answer in answers
        ]


def _completion(ids: Sequence[int], text: str, reason: str | None) -> Completion:
    finish: Finish = "length" if reason == "length" else "stop"
    return Completion(tuple(ids), text, finish)


def _lora_rank(policy: PolicyConfig) -> int:
    """Return the least rank that vLLM takes and the policy's adapter fits in."""
    from peft import LoraConfig

    rank = policy.lora.r
    if policy.adapter is not None:
        saved = LoraConfig.from_pretrained(str(policy.adapter))
        rank = int(getattr(saved, "r", rank))
    for allowed in _RANKS:
        if rank <= allowed:
            return allowed
    raise ConfigError(
        f"generation.backend=vllm: takes adapters up to rank {_RANKS[-1]} (the policy's has "
        f"{rank}); set generation.backend=transformers"
    )
