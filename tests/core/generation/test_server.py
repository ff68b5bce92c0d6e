"""Against a real HTTP server on this machine that runs the tiny policy."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import ValidationError
from trillium.errors import BackendError, ConfigError
from trillium.generation import PromptBatch, SamplingConfig
from trillium.generation.in_process import TransformersGenerator
from trillium.generation.server import ServerConfig, ServerGenerator
from trillium.policies.tiny import tiny_policy, tiny_tokenizer

PROMPTS = [[10, 20, 30], [40, 50], [60, 70, 80, 90]]


class Server(ThreadingHTTPServer):
    """Serve `/v1/completions` with the tiny policy; `failures` are statuses to answer first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Endpoint)
        self.policy = TransformersGenerator(tiny_policy(), tiny_tokenizer())
        self.failures: list[int] = []
        self.requests: list[dict] = []
        self.keys: list[str | None] = []
        self.sends_ids = True
        self.n_lost = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Endpoint(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        self.server.keys.append(self.headers.get("Authorization"))
        if self.path != "/v1/completions":
            self.reply(404, {"error": "no such page"})
        elif self.server.failures:
            self.reply(self.server.failures.pop(0), {"error": "try later"})
        else:
            self.reply(200, {"choices": self.complete(request)})

    def complete(self, request: dict) -> list[dict]:
        prompts = request["prompt"]
        batch = PromptBatch(
            tuple(range(len(prompts))),
            tuple(map(tuple, prompts)),
            request["n"],
            request["seed"],
        )
        sampling = SamplingConfig(
            temperature=request["temperature"],
            top_p=request["top_p"],
            max_new_tokens=request["max_tokens"],
            stop=request.get("stop", ()),
        )
        drawn = [
            one for group in self.server.policy.generate_batch(batch, sampling) for one in group
        ]
        choices = []
        for index, one in enumerate(drawn):
            choices.append({"index": index, "text": one.text, "finish_reason": one.finish})
            if request.get("return_token_ids") and self.server.sends_ids:
                choices[-1]["token_ids"] = one.ids
        return choices[self.server.n_lost :][::-1]

    def reply(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test output clean."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def client(url: str, **settings) -> ServerGenerator:
    config = ServerConfig(url=url, model="tiny", backoff_s=0.0, n_retries=2, **settings)
    return ServerGenerator(config, tiny_tokenizer())


def draw(source, *, stop=()):
    return source.generate(
        PROMPTS, n_samples=3, temperature=1.0, top_p=0.9, max_new_tokens=12, stop=stop, seed=1
    )


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


def test_stop_strings_travel_and_are_cut(server):
    free = draw(client(server.url))
    limited = draw(client(server.url), stop=("e",))
    assert server.requests[1]["stop"] == ["e"]
    for group, short_group in zip(free, limited, strict=True):
        for long, short in zip(group, short_group, strict=True):
            assert short.text == long.text.split("e")[0]


@pytest.mark.parametrize("url", ["127.0.0.1:8000/v1", "file:///etc/passwd", ""])
def test_only_web_addresses_are_taken(url):
    with pytest.raises(ValidationError):
        client(url)


def test_a_page_that_is_no_completions_server_is_reported(server):
    with pytest.raises(BackendError, match="status 404"):
        draw(client(server.url.replace("/v1", "/v2")))
