import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from trillium.errors import DataError
from trillium.generation import Completion, SamplingConfig, assemble, plan_batches


def label(prompt: int, sample: int) -> Completion:
    return Completion(ids=(prompt, sample), text="", finish="length")


@pytest.mark.property
@given(
    lengths=st.lists(st.integers(1, 30), max_size=20),
    n_samples=st.integers(1, 20),
    max_rows=st.integers(1, 16),
)
def test_every_prompt_gets_its_samples_in_batches_that_fit(lengths, n_samples, max_rows):
    prompts = [[index] * length for index, length in enumerate(lengths)]
    batches = plan_batches(prompts, n_samples=n_samples, seed=0, max_rows=max_rows)
    for batch in batches:
        assert batch.n_samples >= 1
        assert len(batch.prompts) * batch.n_samples <= max_rows
    results = [
        [[label(index, 0)] * batch.n_samples for index in batch.indices] for batch in batches
    ]
    assembled = assemble(len(prompts), batches, results)
    assert assembled == [[label(index, 0)] * n_samples for index in range(len(prompts))]


def test_prompts_of_similar_length_share_a_batch_and_the_longest_come_first():
    prompts = [[1] * length for length in (3, 9, 4, 8)]
    batches = plan_batches(prompts, n_samples=2, seed=0, max_rows=4)
    assert [batch.indices for batch in batches] == [(1, 3), (2, 0)]


def test_seeds_differ_between_batches_and_between_runs_and_repeat():
    prompts = [[1], [2], [3]]
    first, again, other = (
        [batch.seed for batch in plan_batches(prompts, n_samples=1, seed=seed, max_rows=1)]
        for seed in (7, 7, 8)
    )
    assert first == again
    assert len({*first, *other}) == 6
    assert all(0 <= seed < 2**63 for seed in first)


def test_a_prompt_without_tokens_is_refused_by_name():
    with pytest.raises(DataError, match="prompt 1: has no tokens"):
        plan_batches([[1], []], n_samples=1, seed=0, max_rows=4)


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.1}, {"n_samples": 0}, {"stop": [""]}],
)
def test_sampling_out_of_bounds_is_refused(wrong):
    with pytest.raises(ValidationError):
        SamplingConfig(**wrong)
