import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from trillium.errors import BackendError
from trillium.generation import SamplingConfig
from trillium.generation.in_process import TransformersGenerator
from trillium.policies.tiny import tiny_policy, tiny_tokenizer

PROMPTS = [[10, 20, 30, 40, 50], [60, 70], [80, 90, 100, 110, 120, 130, 140], [150]]


def generator(
    model: LlamaForCausalLM | None = None, *, max_rows: int = 64, batch_rows: int | None = None
) -> TransformersGenerator:
    return TransformersGenerator(
        model or tiny_policy(), tiny_tokenizer(), max_rows=max_rows, batch_rows=batch_rows
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
        SamplingConfig(n_samples=n_samples, temperature=1.3, max_new_tokens=40, stop=stop),
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
        PROMPTS,
        SamplingConfig(n_samples=2, temperature=0, top_p=1, max_new_tokens=150),
        seed=0,
    )
    for completion in generated[PROMPTS.index(prompt)]:
        assert list(completion.ids) == expected.tolist()


def test_the_space_between_a_prompt_and_its_continuation_is_kept():
    words = ["<unk>", "</s>", *(f"\u2581w{number}" for number in range(258))]
    vocabulary = {word: number for number, word in enumerate(words)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    # SentencePiece's way: a word begins with its space, and the first space of a text is cut.
    spaces, first = decoders.Replace("\u2581", " "), decoders.Strip(" ", 1, 0)
    backend.decoder = decoders.Sequence([spaces, decoders.Fuse(), first])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    source = TransformersGenerator(tiny_policy(), tokenizer, max_rows=4)
    for prompt, completions in zip(PROMPTS, draw(source, n_samples=2), strict=True):
        for completion in completions:
            whole = tokenizer.decode([*prompt, *completion.ids], skip_special_tokens=True)
            assert tokenizer.decode(prompt) + completion.text == whole
            assert completion.text.startswith(" ")


def test_samples_that_share_a_prefill_equal_samples_computed_alone():
    repeated = [prompt for prompt in PROMPTS for _ in range(6)]
    alone = draw(generator(), prompts=repeated, n_samples=1)
    assert [ids for group in ids_of(draw(generator())) for ids in group] == [
        ids for group in ids_of(alone) for ids in group
    ]


@pytest.mark.parametrize("max_rows", [1, 3, 7, 64])
def test_greedy_rows_that_end_early_and_are_refilled_equal_those_of_transformers(max_rows):
    model, ends = policy_that_ends_often(), [2, *range(100, 113)]
    random = torch.Generator().manual_seed(4)
    prompts = [
        torch.randint(4, 260, (length,), generator=random).tolist()
        for length in (3, 40, 1, 9, 9, 22, 150, 2, 17, 5, 5, 31)
    ]
    generated = generator(model, max_rows=max_rows, batch_rows=64).generate(
        prompts, SamplingConfig(temperature=0, top_p=1, max_new_tokens=25), seed=0
    )
    for prompt, (completion,) in zip(prompts, generated, strict=True):
        alone = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=25,
            do_sample=False,
            eos_token_id=ends,
        )
        assert list(completion.ids) == alone[0, len(prompt) :].tolist()
    assert len({len(completion.ids) for (completion,) in generated}) > 3


def test_the_number_of_rows_decoded_together_changes_no_sample():
    drawn = {
        max_rows: ids_of(
            draw(generator(policy_that_ends_often(), max_rows=max_rows, batch_rows=24))
        )
        for max_rows in (1, 2, 5, 11, 24)
    }
    assert all(ids == drawn[24] for ids in drawn.values())
    lengths = {len(ids) for group in drawn[24] for ids in group}
    assert len(lengths) > 5, "rows must finish at different steps for this test to mean something"


def test_every_token_is_forwarded_once_and_a_prompt_once_for_all_of_its_samples():
    """What is drawn last is not forwarded; prompts of one length need no padding."""
    model, seen = policy_that_ends_often(), []
    model.register_forward_pre_hook(
        lambda _, __, inputs: seen.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    prompts = [[10 + index, 20, 30, 40, 50, 60, 70] for index in range(9)]
    source = generator(model, max_rows=8, batch_rows=90)
    (batch,) = source.plan(prompts, n_samples=10, seed=1)
    groups = source.generate_batch(batch, SamplingConfig(temperature=1.3, max_new_tokens=40))
    completions = [one for group in groups for one in group]
    prompt_shapes = [shape for shape in seen if shape[1] > 1]
    row_counts = [shape[0] for shape in seen if shape[1] == 1]
    assert sum(n_rows * n_columns for n_rows, n_columns in prompt_shapes) == 9 * 7
    assert sum(row_counts) == sum(len(one.ids) - 1 for one in completions)
    assert max(row_counts) == 8
    full = [n_rows for n_rows in row_counts[: len(row_counts) // 2] if n_rows >= 7]
    assert len(full) >= 0.9 * (len(row_counts) // 2), "rows must be refilled while any wait"


def test_memory_is_that_of_the_rows_and_of_prompts_whose_samples_enter():
    model, held = policy_that_ends_often(), []
    model.register_forward_hook(
        lambda _, __, inputs, ___: held.append(
            tuple(inputs["past_key_values"].layers[1].keys.shape)
        ),
        with_kwargs=True,
    )
    prompts = [[4 + index] * (100 + index) for index in range(12)]
    source = generator(model, max_rows=6, batch_rows=48)
    (batch,) = source.plan(prompts, n_samples=4, seed=1)
    source.generate_batch(batch, SamplingConfig(temperature=1.3, max_new_tokens=60))
    assert max(shape[0] for shape in held) == 6
    assert max(shape[2] for shape in held) <= 111 + 60
    assert all(shape[0] <= 2 for shape in held if shape[2] < 128), "two prompts fill six rows"


def test_a_cache_that_grows_when_nobody_waits_has_room_for_the_rows_that_are_left():
    model, held = tiny_policy(), []
    model.generation_config.eos_token_id = [2, 100]
    model.register_forward_hook(
        lambda _, __, inputs, ___: held.append(
            tuple(inputs["past_key_values"].layers[0].keys.shape)
        ),
        with_kwargs=True,
    )
    source = generator(model)
    (batch,) = source.plan([[10, 20, 30]], n_samples=20, seed=1)
    (group,) = source.generate_batch(batch, SamplingConfig(temperature=1.3, max_new_tokens=200))
    # Three tokens of the prompt and 126 of the answer do not fit 128 columns.
    n_left = sum(len(one.ids) > 126 for one in group)
    assert 0 < n_left < 20
    assert {shape[0] for shape in held if 1 < shape[2] <= 128} == {1, 20}
    assert {shape[0] for shape in held if shape[2] > 128} == {n_left}


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
        policy_that_ends_often(), tiny_tokenizer(), on_tokens=counts.append
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
