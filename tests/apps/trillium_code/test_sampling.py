import pytest
import torch
from trillium.errors import BackendError
from trillium.generation import SamplingConfig
from trillium.generation.interface import BatchedGenerator
from trillium.runs import Run
from trillium_code.config import CodeConfig
from trillium_code.sampling import Prompts, sample_stage


class FullGpu(BatchedGenerator):
    """What a batch that does not fit looks like from outside."""

    def generate_batch(self, batch, sampling):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. More words.")


def test_a_batch_that_does_not_fit_says_what_to_lower(tmp_path):
    sampling = SamplingConfig(n_samples=4)
    with Run.open(tmp_path / "run", CodeConfig(), seed=0) as run:
        stage = run.stage("sample_programs", {})
        with pytest.raises(
            BackendError, match=r"sample_programs: 8 completions .*; lower max_rows"
        ):
            sample_stage(
                stage,
                "samples.jsonl",
                ["a", "b", "c"],
                lambda: Prompts([(5, 6)] * 3, [True] * 3),
                sampling,
                lambda: FullGpu(max_rows=8),
                seed=0,
            )
