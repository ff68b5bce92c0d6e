"""Who continues prompts, as a run file says it: this process, vLLM in it, or a server.

    generation: {backend: transformers}                      the policy, in this process
    generation: {backend: vllm}                              the policy, in vLLM's engine
    generation: {backend: server, url: http://127.0.0.1:8000/v1, model: NAME}

A server knows its model by name, and what training saves here has no name there. So a server is
asked for the policy that the run starts from, as base or adapter under `model`, and no more, unless
it `loads_adapters`: then every adapter goes through it. Beside this, `ray: {address: auto}` puts
the sampling of `transformers` on actors of a cluster. Nothing here imports torch.
"""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from trillium.files import hash_json


class TransformersConfig(BaseModel):
    """Sample from the loaded policy in this process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Literal["transformers"] = Field("transformers", description="transformers, here")
    batch_rows: int | None = Field(
        None,
        gt=0,
        description="completions planned together: with more than max_rows, finished ones make "
        "room for others, and a kill costs more; null = max_rows",
    )


def batches_identity(batch_rows: int | None) -> str:
    """Return what `batch_rows` adds to an engine's identity: batches carry the seeds."""
    return "" if batch_rows is None else hash_json(["batch_rows", batch_rows])


class VllmConfig(BaseModel):
    """Sample with vLLM, which loads the base a second time and takes every adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Literal["vllm"] = Field("vllm", description="vLLM, in this process")
    memory_share: float = Field(
        0.45, gt=0, lt=1, description="of the GPU for weights and cache; the trainer needs the rest"
    )
    max_length: int | None = Field(
        None, gt=0, description="tokens of prompt and completion; null = what the model reads"
    )
    is_eager: bool = Field(False, description="start sooner and run slower: no compiled graphs")


class ServerConfig(BaseModel):
    """Where an OpenAI-compatible server is and how patient to be with it.

    What OpenAI's protocol does not have (top_k, min_p, a repetition penalty) is turned off in
    completions of a server that `returns_token_ids`. Elsewhere, and in chat, the server's own
    defaults hold; start vLLM with --generation-config vllm, which leaves those of the model out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(
        pattern="^https?://.", description="with the version, as in http://127.0.0.1:8000/v1"
    )
    model: str = Field(description="name of the model or adapter on the server")
    api_key_variable: str = Field(
        default="", description="environment variable with the key; a run's files never hold it"
    )
    timeout_s: float = Field(
        default=300.0, gt=0, le=86_400, description="seconds for one answer, a day at most"
    )
    n_retries: int = Field(default=4, ge=0, description="further attempts for one request")
    backoff_s: float = Field(
        default=1.0, ge=0, le=3600, description="pause before the first; then doubled"
    )
    max_rows: int = Field(default=64, gt=0, description="completions asked for per request")
    n_requests: int = Field(default=2, gt=0, description="requests that the server has at a time")
    returns_token_ids: bool = Field(
        default=True, description="ask for sampled ids (vLLM); without, the text is encoded again"
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        """Refuse what no request can be sent to."""
        try:
            parts = urlsplit(url)
            has_host = bool(parts.hostname and parts.hostname.encode("idna"))
            is_right = has_host and parts.port != 0
        except ValueError as error:
            raise ValueError(f"is no address ({error}); correct it") from error
        if not is_right or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError(
                "is no address (needs http://HOST:PORT/v1 in ASCII, without spaces); correct it"
            )
        return url


class ServedPolicyConfig(ServerConfig):
    """Sample from the run's policy on a server.

    Without `loads_adapters`, programs and tests of the first round come from the server, and what
    needs an adapter that training saved is sampled in this process: later rounds, and both sides
    of the evaluation, so that before and after differ in the weights alone. With it, adapters are
    named to the server by their folder, and everything is sampled there.
    """

    backend: Literal["server"] = Field("server", description="OpenAI-compatible completions")
    loads_adapters: bool = Field(
        False,
        description="load_lora_adapter works there, on a disk with this run's folder (vLLM with "
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1)",
    )


GenerationConfig = Annotated[
    TransformersConfig | VllmConfig | ServedPolicyConfig, Field(discriminator="backend")
]


class RayConfig(BaseModel):
    """Use a Ray cluster: actors that sample, and a sandbox on every node.

    Every node needs this package, and the base under the same name; adapters travel to it. Queues
    are bounded: an actor has two batches of prompts at most, a node two of programs. An actor that
    is lost is started again and draws the same completions; a node that is lost leaves its programs
    to the others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field(
        "auto", min_length=1, description="auto (of this machine) | local (start one) | HOST:PORT"
    )
    n_samplers: int = Field(
        1, ge=0, description="actors with a policy each; 0 = sample in this process"
    )
    cpus_per_sampler: float = Field(1.0, ge=0, description="processors that an actor reserves")
    gpus_per_sampler: float = Field(0.0, ge=0, description="GPUs that an actor reserves")
    batch_programs: int = Field(32, gt=0, description="programs that a node is sent at a time")
