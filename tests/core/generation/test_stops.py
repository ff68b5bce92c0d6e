from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trillium.generation.stops import StopFinder
from trillium.policies.tiny import tiny_tokenizer


def finder(*stops: str) -> StopFinder:
    tokenizer = tiny_tokenizer()

    def decode(ids: Sequence[int]) -> str:
        return tokenizer.decode(list(ids), skip_special_tokens=True)

    return StopFinder(decode, stops)


def first_hit(stops: StopFinder, ids: list[int]) -> int | None:
    return next((end for end in range(1, len(ids) + 1) if stops.is_hit(ids[:end])), None)


@pytest.mark.property
@given(
    text=st.text(alphabet="ab\né€", max_size=60),
    stop=st.text(alphabet="ab\né€", min_size=1, max_size=4),
)
def test_a_stop_string_is_found_at_the_token_that_completes_it(text, stop):
    ids = tiny_tokenizer()(text)["input_ids"]
    end = first_hit(finder(stop), ids)
    if stop not in text:
        assert end is None
    else:
        assert end == len(text[: text.index(stop) + len(stop)].encode())


def test_a_stop_string_may_span_tokens_that_do_not_show():
    ids = tiny_tokenizer()("a\n```<|pad|><|pad|>\nb")["input_ids"]
    assert first_hit(finder("```\n"), ids) == 8


def test_the_earliest_stop_string_wins_and_can_be_kept():
    stops = finder("END", "\n\n", "\n\n\n")
    assert stops.cut("one\n\n\ntwo END") == "one"
    assert stops.cut("one\n\n\ntwo END", keep_stop=True) == "one\n\n\n"
    assert stops.cut("END") == ""
    assert stops.cut("nothing here") == "nothing here"


def test_without_stop_strings_nothing_is_hit():
    assert not finder().is_hit([10, 11])


def test_only_tokens_that_can_complete_a_stop_string_have_their_surroundings_decoded():
    tokenizer, decoded = tiny_tokenizer(), []

    def decode(ids: Sequence[int]) -> str:
        decoded.append(len(ids))
        return tokenizer.decode(list(ids), skip_special_tokens=True)

    stops = StopFinder(decode, ("```\n",))
    ids = tokenizer("abab" * 50)["input_ids"]
    assert first_hit(stops, ids) is None
    assert decoded == [1, 1]
    assert first_hit(stops, tokenizer("ab```\nab")["input_ids"]) == 6
