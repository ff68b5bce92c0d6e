"""Completions from a policy: one interface, several engines.

What is imported here, and `config`, cost nothing to import; the engines live in their own modules:
`in_process.TransformersGenerator` for a model in this process, `vllm_engine.VllmGenerator` for one
in vLLM, `server.ServerGenerator` for one behind an OpenAI-compatible server, `on_ray.RayGenerator`
for actors of a cluster. `engines.open_engine` opens what a run file asks for.
"""

from trillium.generation.interface import (
    Completion,
    Generator,
    PromptBatch,
    SamplingConfig,
    StopString,
    assemble,
    generate_batches,
    plan_batches,
)

__all__ = [
    "Completion",
    "Generator",
    "PromptBatch",
    "SamplingConfig",
    "StopString",
    "assemble",
    "generate_batches",
    "plan_batches",
]
