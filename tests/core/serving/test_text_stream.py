"""Pieces of text, put together, are what the whole would have been."""

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast
from trillium.generation.stops import StopFinder
from trillium.policies.tiny import tiny_tokenizer
from trillium.serving.rows import decoder
from trillium.serving.text_stream import TextStream

DECODE = decoder(tiny_tokenizer())


def stream(text_ids, stops=(), *, keep_stop=False, decode=DECODE, context=()):
    """Push ids until a stop string ends it; return the pieces."""
    text = TextStream(decode, stops, keep_stop=keep_stop, context=context)
    pieces = []
    for token in text_ids:
        pieces.append(text.push(token))
        if text.is_stopped:
            break
    return [*pieces, text.finish()], text


def ids_of(text):
    return tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]


@pytest.mark.property
@given(st.lists(st.integers(0, 259), max_size=40))
def test_pieces_of_any_tokens_join_to_the_decoded_whole(ids):
    pieces, _ = stream(ids)
    assert "".join(pieces) == DECODE(ids)


@pytest.mark.property
@given(st.text(alphabet="abé", max_size=30), st.lists(st.text("abé", min_size=1), max_size=3))
@pytest.mark.parametrize("keep_stop", [False, True])
def test_stop_strings_cut_as_on_the_whole_text(keep_stop, text, stops):
    pieces, found = stream(ids_of(text), stops, keep_stop=keep_stop)
    # The whole is what had been sampled when the first stop string was complete.
    whole = DECODE(found.ids)
    assert "".join(pieces) == StopFinder(DECODE, stops).cut(whole, keep_stop=keep_stop)
    assert found.is_stopped == any(stop in text for stop in stops)


def test_a_character_of_several_tokens_leaves_whole():
    ids = ids_of("a☃b")
    assert len(ids) == 5
    pieces, _ = stream(ids)
    assert pieces == ["a", "", "", "☃", "b", ""]


def test_what_may_begin_a_stop_string_waits_for_the_next_token():
    pieces, text = stream(ids_of("x<en"), ["<end>"])
    assert pieces == ["x", "", "", "", "<en"]
    assert not text.is_stopped
    pieces, text = stream(ids_of("x<end>y"), ["<end>"])
    assert "".join(pieces) == "x"
    assert text.is_stopped
    assert len(text.ids) == len(ids_of("x<end>"))


@pytest.fixture(scope="module")
def pieces_tokenizer():
    """SentencePiece's way: a word begins with its space, and the first space of a text is cut."""
    words = ["<unk>", "</s>", "\u2581The", "\u2581is", "\u2581Paris", "."]
    vocab = {
        word: i for i, word in enumerate([*words, *(f"<0x{byte:02X}>" for byte in range(256))])
    }
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


def test_a_continuation_keeps_the_space_between_it_and_its_prompt(pieces_tokenizer):
    decode, (the, is_, paris, dot) = decoder(pieces_tokenizer), range(2, 6)
    pieces, text = stream([paris, dot, is_], decode=decode, context=(the, is_))
    assert "".join(pieces) == " Paris. is"
    assert text.ids == [the, is_, paris, dot, is_]
    assert "".join(stream([paris, dot], decode=decode)[0]) == "Paris."
    stopped, _ = stream([paris, dot], [" Paris"], decode=decode, context=(the, is_))
    assert "".join(stopped) == ""


@pytest.mark.property
@given(st.lists(st.integers(0, 259), max_size=8), st.lists(st.integers(0, 259), max_size=20))
def test_a_context_adds_nothing_to_the_text(context, ids):
    pieces, _ = stream(ids, context=context)
    assert "".join(pieces) == DECODE(ids)


def test_the_server_puts_the_space_before_a_completion_but_not_before_an_answer(
    shelf, serve, pieces_tokenizer, tmp_path
):
    base = shutil.copytree(shelf / "base", tmp_path / "base")
    pieces_tokenizer.chat_template = "{{ messages[0].content }}"
    (base / "tokenizer_config.json").unlink()
    pieces_tokenizer.save_pretrained(base)
    body = {"model": "base", "temperature": 10, "n": 128, "seed": 1, "max_tokens": 1}
    with serve(tmp_path, names=(), max_waiting=128) as client:

        def words(route, key, **asked):
            answer = client.post(route, json={**body, "return_token_ids": True, **asked}).json()
            picked = [each for each in answer["choices"] if each["token_ids"][0] in (2, 3, 4)]
            assert picked
            return [each[key] for each in picked]

        spaced = words("/v1/completions", "text", prompt="The")
        assert all(text.startswith(" ") for text in spaced)
        for n_tokens in range(1, 10):
            spaced = words("/v1/completions", "text", prompt=[2] * n_tokens + [1])
            assert all(text.startswith(" ") for text in spaced)
        messages = [{"role": "user", "content": "The"}]
        answers = words("/v1/chat/completions", "message", messages=messages)
        assert not any(each["content"].startswith(" ") for each in answers)
