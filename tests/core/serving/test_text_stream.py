"""Pieces of text, put together, are what the whole would have been."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trillium.generation.stops import StopFinder
from trillium.policies.tiny import tiny_tokenizer
from trillium.serving.rows import decoder
from trillium.serving.text_stream import TextStream

DECODE = decoder(tiny_tokenizer())


def stream(text_ids, stops=(), *, keep_stop=False):
    """Push ids until a stop string ends it; return the pieces."""
    text = TextStream(DECODE, stops, keep_stop=keep_stop)
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
