"""Against a real HTTP server on this machine that runs the tiny policy."""

import importlib.util
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError
from trillium.errors import BackendError, ConfigError
from trillium.generation import Completion, PromptBatch, SamplingConfig, generate_batches
from trillium.generation.config import ServerConfig
from trillium.generation.connection import ServerConnection
from trillium.generation.server import ServerGenerator
from trillium.policies.tiny import tiny_policy, tiny_tokenizer

PROMPTS = [[10, 20, 30], [40, 50], [60, 70, 80, 90]]

_spec = importlib.util.spec_from_file_location(
    "openai_server", Path(__file__).parents[2] / "openai_server.py"
)
openai_server = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(openai_server)


@pytest.fixture
def server():
    with openai_server.serving(tiny_policy(), tiny_tokenizer()) as running:
        yield running


def client(url: str, **settings) -> ServerGenerator:
    config = ServerConfig(url=url, model="tiny", backoff_s=0.0, n_retries=2, **settings)
    return ServerGenerator(config, tiny_tokenizer())


def draw(source, *, stop=()):
    sampling = SamplingConfig(n_samples=3, temperature=1.0, top_p=0.9, max_new_tokens=12, stop=stop)
    return source.generate(PROMPTS, sampling, seed=1)


def test_a_server_gives_the_completions_of_the_policy_behind_it(server):
    expected = []
    source = client(server.url, max_rows=6)
    batches = source.plan(PROMPTS, n_samples=3, seed=1)
    assert len(batches) == 2
    for batch in batches:
        same = PromptBatch(batch.indices, batch.prompts, batch.n_samples, batch.seed % 2**31)
        sampling = SamplingConfig(temperature=1.0, top_p=0.9, max_new_tokens=12)
        expected.append(server.policy.generate_batch(same, sampling))
    drawn = draw(source)
    by_prompt = {
        index: group
        for batch, result in zip(batches, expected, strict=True)
        for index, group in zip(batch.indices, result, strict=True)
    }
    for index, group in enumerate(drawn):
        assert [(one.ids, one.text, one.finish) for one in group] == [
            (one.ids, one.text, one.finish) for one in by_prompt[index]
        ]
    assert server.requests[0]["model"] == "tiny"
    assert "stop" not in server.requests[0]


def test_a_server_of_vllms_kind_is_told_to_leave_the_models_own_sampling_out(server):
    draw(client(server.url))
    plain = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    assert plain.items() <= server.requests[0].items()
    source = client(server.url)
    source.generate_batch(source.plan(PROMPTS, n_samples=1, seed=0)[0], SamplingConfig(top_k=7))
    assert server.requests[-1]["top_k"] == 7
    draw(client(server.url, returns_token_ids=False))
    assert not plain.keys() & server.requests[-1].keys()  # OpenAI refuses what it does not know


def test_without_token_ids_the_text_is_encoded_again(server):
    for group in draw(client(server.url, returns_token_ids=False)):
        for one in group:
            assert list(one.ids) == tiny_tokenizer().encode(one.text, add_special_tokens=False)
            assert one.logp is None
    assert "return_token_ids" not in server.requests[0]


def test_a_busy_server_is_asked_again(server):
    server.failures = [503, 429]
    assert len(draw(client(server.url))) == 3
    assert len(server.requests) == 3


def test_a_server_that_stays_busy_is_given_up_with_what_it_said(server):
    server.failures = [503] * 9
    with pytest.raises(BackendError, match=r"status 503: .*try later.* after 3 attempts"):
        draw(client(server.url))


def test_a_refusal_is_not_repeated(server):
    server.failures = [400]
    with pytest.raises(BackendError, match="status 400"):
        draw(client(server.url))
    assert len(server.requests) == 1


def test_nobody_there_is_one_clear_sentence():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(BackendError, match=r"refused.* after 3 attempts .* check that it runs"):
            draw(client(url))


def test_missing_ids_and_missing_completions_are_reported(server):
    server.sends_ids = False
    with pytest.raises(BackendError, match="set returns_token_ids = false"):
        draw(client(server.url))
    server.n_lost = 1
    with pytest.raises(BackendError, match=r"answered 8 completions \(9 were asked for\)"):
        draw(client(server.url))


def test_the_key_travels_and_is_in_no_message(server, monkeypatch):
    monkeypatch.setenv("TINY_KEY", "secret-key")
    server.failures = [401]
    with pytest.raises(BackendError) as raised:
        draw(client(server.url, api_key_variable="TINY_KEY"))
    assert server.keys == ["Bearer secret-key"]
    assert "secret-key" not in str(raised.value)


def test_a_missing_key_is_named_before_anything_is_sent(server):
    with pytest.raises(ConfigError, match="api_key_variable=NO_SUCH_KEY: is not set"):
        client(server.url, api_key_variable="NO_SUCH_KEY")
    assert server.requests == []


@pytest.mark.parametrize("key", ["sk-secret\n", " sk-secret "])
def test_white_space_around_a_key_is_left_out(server, monkeypatch, key):
    monkeypatch.setenv("TINY_KEY", key)
    draw(client(server.url, api_key_variable="TINY_KEY"))
    assert server.keys == ["Bearer sk-secret"]


@pytest.mark.parametrize("key", ["sk-sec\nret", "sk-\u201csecret\u201d"])
def test_a_key_that_no_request_can_carry_is_refused_without_being_shown(server, monkeypatch, key):
    monkeypatch.setenv("TINY_KEY", key)
    with pytest.raises(ConfigError, match="api_key_variable=TINY_KEY: holds other") as raised:
        client(server.url, api_key_variable="TINY_KEY")
    assert "sec" not in str(raised.value)
    assert server.requests == []


@pytest.mark.security
def test_the_key_does_not_follow_a_redirect(server, monkeypatch):
    monkeypatch.setenv("TINY_KEY", "secret-key")
    config = ServerConfig(url=server.url, model="tiny", api_key_variable="TINY_KEY")
    with openai_server.serving(tiny_policy(), tiny_tokenizer()) as other:
        server.elsewhere = f"{other.url}/models"
        for ask in (
            lambda: ServerConnection(config).models(),
            lambda: draw(client(server.url, api_key_variable="TINY_KEY")),
        ):
            with pytest.raises(BackendError, match=rf"status 30[27]: is elsewhere, at {other.url}"):
                ask()
        assert server.keys == ["Bearer secret-key"] * 2
        assert other.keys == []


def test_stop_strings_travel_and_are_cut(server):
    free = draw(client(server.url))
    limited = draw(client(server.url), stop=("e",))
    assert server.requests[1]["stop"] == ["e"]
    for group, short_group in zip(free, limited, strict=True):
        for long, short in zip(group, short_group, strict=True):
            assert short.text == long.text.split("e")[0]


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000/v1",
        "file:///etc/passwd",
        "",
        "http://127.0.0.1:9/v\u00e9",
        "http://127.0.0.1:9/v 1",
        "http://127.0.0.1:port/v1",
        "http://127.0.0.1:99999/v1",
        "http://[::1/v1",
        "http://a..b/v1",
        f"http://{'a' * 70}.com/v1",
        "http://:8000/v1",
    ],
)
def test_only_web_addresses_are_taken(url):
    with pytest.raises(ValidationError):
        client(url)


@pytest.mark.parametrize(
    "patience", [{"timeout_s": 1e300}, {"timeout_s": float("inf")}, {"backoff_s": 1e300}]
)
def test_more_patience_than_a_clock_can_count_is_refused(patience):
    with pytest.raises(ValidationError, match="less than or equal to"):
        ServerConfig(url="http://127.0.0.1:9/v1", model="tiny", **patience)


def test_a_page_that_is_no_completions_server_is_reported(server):
    with pytest.raises(BackendError, match="status 404"):
        draw(client(server.url.replace("/v1", "/v2")))


def test_several_requests_at_a_time_come_back_in_order(server):
    source = client(server.url, max_rows=3, n_requests=3)
    batches = source.plan(PROMPTS, n_samples=3, seed=1)
    sampling = SamplingConfig(temperature=1.0, top_p=0.9, max_new_tokens=12)
    drawn = list(generate_batches(source, batches, sampling))
    assert drawn == [source.generate_batch(batch, sampling) for batch in batches]
    assert len(batches) == 3


def test_what_was_encoded_again_says_so(server):
    exact, encoded = (
        [one for group in draw(client(server.url, returns_token_ids=asks)) for one in group]
        for asks in (True, False)
    )
    assert not any(one.is_encoded_again for one in exact)
    assert all(one.is_encoded_again for one in encoded)


def test_tokens_of_another_model_are_refused(server):
    foreign = Completion((99999,), "", "stop")
    server.policy.generate_batch = lambda batch, _: (
        [[foreign] * batch.n_samples] * len(batch.prompts)
    )
    with pytest.raises(BackendError, match=r"sampled token 99999 \(the policy's tokenizer has"):
        draw(client(server.url))


@pytest.mark.parametrize(
    ("ids", "text", "finish", "message"),
    [
        ((-1, 10), "ab", "stop", r"token_ids\.0: Input should be greater than or equal to 0"),
        ((), "ab", "stop", r"sends 0 token_ids for a text of 2 characters \(1 to 12 were"),
        (tuple(range(13)), "ab", "length", r"sends 13 token_ids .* returns_token_ids = false"),
        ((), "", "abort", r"ended a completion with abort \(stop or length was expected\)"),
    ],
)
def test_what_no_server_can_have_sampled_is_refused(server, ids, text, finish, message):
    one = SimpleNamespace(ids=ids, text=text, finish=finish)
    server.policy.generate_batch = lambda batch, _: [[one] * batch.n_samples] * len(batch.prompts)
    with pytest.raises(BackendError, match=message):
        draw(client(server.url))


def test_a_check_finds_the_model_or_says_which_there_are(server):
    def connection(model, url=server.url):
        return ServerConnection(ServerConfig(url=url, model=model, n_retries=0))

    connection("tiny").check()
    with pytest.raises(ConfigError, match=r"model=big: http\S+ does not serve it \(it serves tiny"):
        connection("big").check()
    server.lists_models = False
    connection("big").check()
    with pytest.raises(BackendError, match=r"after 1 attempt .* check that it runs"):
        connection("tiny", "http://127.0.0.1:9/v1").check()
