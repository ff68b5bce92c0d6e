import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM
from trillium.errors import BackendError
from trillium.generation import SamplingConfig
from trillium.generation.in_process import TransformersGenerator
from trillium.policies.tiny import tiny_policy, tiny_tokenizer

PROMPTS = [[10, 20, 30, 40, 50], [60, 70], [80, 90, 100, 110, 120, 130, 140], [150]]


def generator(
    model: LlamaForCausalLM | None = None, *, max_rows: int = 64, compact_share: float = 0.125
) -> TransformersGenerator:
    return TransformersGenerator(
        model or tiny_policy(),
        tiny_tokenizer(),
        max_rows=max_rows,
        compact_share=compact_share,
    )


def policy_that_ends_often() -> LlamaForCausalLM:
    model = tiny_policy()
    model.generation_config.eos_token_id = [2, *range(100, 113)]
    return model


def ids_of(generated: list) -> list[list[tuple[int, ...]]]:
    return [[completion.ids for completion in completions] for completions in generated]


def draw(source: TransformersGenerator, *, prompts=PROMPTS, n_samples=6, stop=(), seed=3):
    return source.generate(
        prompts,
        n_samples=n_samples,
        temperature=1.3,
        top_p=0.95,
        max_new_tokens=40,
        stop=stop,
        seed=seed,
    )


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_output_equals_that_of_transformers(prompt):
    model = tiny_policy(seed=1)
    expected = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=150,
        do_sample=False,
    )[0, len(prompt) :]
    generated = generator(model).generate(
        PROMPTS, n_samples=2, temperature=0, top_p=1, max_new_tokens=150, stop=(), seed=0
    )
    for completion in generated[PROMPTS.index(prompt)]:
        assert list(completion.ids) == expected.tolist()


def test_samples_that_share_a_prefill_equal_samples_computed_alone():
    repeated = [prompt for prompt in PROMPTS for _ in range(6)]
    alone = draw(generator(), prompts=repeated, n_samples=1)
    assert [ids for group in ids_of(draw(generator())) for ids in group] == [
        ids for group in ids_of(alone) for ids in group
    ]


def test_dropping_finished_rows_changes_no_token():
    kept = draw(generator(policy_that_ends_often(), compact_share=2.0))
    dropped = draw(generator(policy_that_ends_often(), compact_share=0.0))
    assert ids_of(kept) == ids_of(dropped)
    lengths = {len(completion.ids) for completions in kept for completion in completions}
    assert len(lengths) > 5, "rows must finish at different steps for this test to mean something"


def test_a_batch_gives_the_same_completions_whatever_ran_before():
    sampling = SamplingConfig(temperature=1.3, max_new_tokens=20)
    source = generator(max_rows=8)
    batches = source.plan(PROMPTS, n_samples=4, seed=5)
    assert len(batches) == 2
    in_order = [source.generate_batch(batch, sampling) for batch in batches]
    fresh = generator(max_rows=8)
    assert fresh.generate_batch(batches[1], sampling) == in_order[1]
    assert fresh.generate_batch(batches[0], sampling) == in_order[0]


def test_global_random_state_is_neither_read_nor_changed():
    torch.manual_seed(1)
    first = draw(generator())
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    assert draw(generator()) == first
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert draw(generator(), seed=4) != first


def test_more_samples_than_rows_are_spread_over_batches():
    source = generator(max_rows=4)
    generated = draw(source, n_samples=10)
    assert [len(completions) for completions in generated] == [10] * len(PROMPTS)
    assert len(set(ids_of(generated)[0])) > 5


def test_an_end_token_ends_a_row_and_stays_in_its_ids():
    ends = {2, *range(100, 113)}
    drawn = draw(generator(policy_that_ends_often()), n_samples=16)
    completions = [one for group in drawn for one in group]
    assert {one.finish for one in completions} == {"stop", "length"}
    for one in completions:
        assert not ends & set(one.ids[:-1])
        assert (one.ids[-1] in ends) == (one.finish == "stop")
        assert len(one.ids) == 40 or one.finish == "stop"


def test_special_tokens_are_not_in_the_text():
    model = tiny_policy()
    with torch.no_grad():
        model.model.embed_tokens.weight[2] *= 3
    completions = [one for group in draw(generator(model), n_samples=16) for one in group]
    ended = [one for one in completions if one.ids[-1] == 2]
    assert ended
    decode = tiny_tokenizer().decode
    assert all("<|im_end|>" not in one.text for one in completions)
    assert all(one.text == decode(one.ids[:-1], skip_special_tokens=True) for one in ended)


def test_a_stop_string_ends_the_row_and_is_cut_from_the_text():
    free = draw(generator(), n_samples=16)
    stopped = draw(generator(), n_samples=16, stop=("e", "never written"))
    n_hits = 0
    for group, limited in zip(free, stopped, strict=True):
        for long, short in zip(group, limited, strict=True):
            assert short.ids == long.ids[: len(short.ids)]
            assert short.text == long.text.split("e")[0]
            assert short.finish == ("stop" if "e" in long.text else long.finish)
            if "e" in long.text:
                n_hits += 1
                assert "e" in tiny_tokenizer().decode(short.ids[-1:])
    assert n_hits >= 3


def test_a_kept_stop_string_ends_the_text():
    text = draw(generator())[0][0].text
    stop = text[5:8]
    source = generator()
    sampling = SamplingConfig(temperature=1.3, max_new_tokens=40, stop=(stop,), keep_stop=True)
    (batch,) = source.plan(PROMPTS, n_samples=6, seed=3)
    first = source.generate_batch(batch, sampling)[batch.indices.index(0)][0]
    assert first.text == text[: text.index(stop) + len(stop)]


def test_logp_is_the_log_probability_of_the_written_tokens_under_the_policy():
    model = tiny_policy()
    for prompt, group in zip(PROMPTS, draw(generator(model), n_samples=2), strict=True):
        for completion in group:
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *completion.ids]])).logits[0]
            logps = logits[len(prompt) - 1 : -1].log_softmax(-1)
            expected = logps.gather(1, torch.tensor(completion.ids)[:, None]).sum()
            assert completion.logp == pytest.approx(expected.item(), abs=1e-3)


def test_an_adapter_changes_the_samples_and_switching_it_off_restores_them():
    base = draw(generator(tiny_policy()))
    torch.manual_seed(0)
    adapted = get_peft_model(
        tiny_policy(), LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    )
    assert ids_of(draw(generator(adapted))) != ids_of(base)
    with adapted.disable_adapter():
        assert ids_of(draw(generator(adapted))) == ids_of(base)


def test_the_policy_stays_in_training_mode_when_it_was():
    model = tiny_policy().train()
    draw(generator(model))
    assert model.training


def test_a_bfloat16_policy_repeats_its_samples():
    model = tiny_policy(dtype=torch.bfloat16)
    assert draw(generator(model)) == draw(generator(model))


def test_progress_counts_every_token_once():
    counts: list[int] = []
    source = TransformersGenerator(
        policy_that_ends_often(), tiny_tokenizer(), compact_share=0.5, on_tokens=counts.append
    )
    drawn = draw(source)
    assert sum(counts) == sum(len(one.ids) for group in drawn for one in group)
    assert counts[0] == 6 * len(PROMPTS)
    assert counts == sorted(counts, reverse=True)


def test_a_policy_that_diverged_is_reported_instead_of_sampled():
    model = tiny_policy()
    with torch.no_grad():
        model.lm_head.weight[7] = torch.nan
    with pytest.raises(BackendError, match="logits are not numbers at token 0"):
        draw(generator(model))
