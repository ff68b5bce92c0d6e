"""Completions from a policy: one interface, several engines.

`SamplingConfig`, `Completion`, `PromptBatch` and `plan_batches` cost nothing to import; the engines
live in their own modules: `in_process.TransformersGenerator` for a model in this process,
`server.ServerGenerator` for one behind an OpenAI-compatible server.
"""

from trillium.generation.interface import (
    Completion,
    Generator,
    PromptBatch,
    SamplingConfig,
    assemble,
    plan_batches,
)

__all__ = [
    "Completion",
    "Generator",
    "PromptBatch",
    "SamplingConfig",
    "assemble",
    "plan_batches",
]
