"""Our server beside the code it stands on: same text as in process, bounds, token, numbers."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from trillium.fields import Message
from trillium.generation import SamplingConfig
from trillium.generation.config import ServedPolicyConfig
from trillium.generation.engines import ServerEngine
from trillium.generation.in_process import TransformersGenerator
from trillium.generation.server import ServerConfig, ServerGenerator
from trillium.policies.config import PolicyConfig
from trillium.policies.load import load_policy
from trillium.policies.run_policy import RunPolicy
from trillium.policies.tiny import tiny_tokenizer
from trillium.tokenize import tokenize_prompts

TEXTS = ["Hello", "A longer prompt, so that rows are padded", "x"]


def metric(client, name):
    found = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.fixture(scope="module")
def in_process(shelf):
    """Greedy completions of the adapter "two", by the generator that trains and evaluates use."""
    config = PolicyConfig(
        base=str(shelf / "base"), dtype="float32", adapter=shelf / "adapters" / "two"
    )
    policy = load_policy(config, device="cpu")
    generator = TransformersGenerator(policy.model, policy.tokenizer)

    def complete(prompts, n_tokens=12):
        ids = tokenize_prompts(prompts, policy.tokenizer)
        return [
            generator.generate(
                [one], SamplingConfig(temperature=0, top_p=1.0, max_new_tokens=n_tokens), seed=0
            )[0][0]
            for one in ids
        ]

    return complete


def test_completions_are_those_of_the_generator_in_process(client, in_process):
    expected = in_process(TEXTS)
    body = {"model": "two", "prompt": TEXTS, "temperature": 0, "max_tokens": 12}
    answer = client.post("/v1/completions", json={**body, "return_token_ids": True}).json()
    assert [choice["text"] for choice in answer["choices"]] == [one.text for one in expected]
    assert [tuple(choice["token_ids"]) for choice in answer["choices"]] == [
        one.ids for one in expected
    ]


def test_conversations_are_rendered_as_in_training(client, in_process):
    messages = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]
    (expected,) = in_process([tuple(Message(**message) for message in messages)])
    parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
    body = {"model": "two", "temperature": 0, "max_tokens": 12}
    for last in (messages[1], {"role": "user", "content": parts}):
        answer = client.post("/v1/chat/completions", json={**body, "messages": [messages[0], last]})
        assert answer.json()["choices"][0]["message"]["content"] == expected.text


def test_our_own_client_samples_from_our_own_server(client, in_process):
    config = ServerConfig(url=f"{client.base_url}/v1", model="two")
    generator = ServerGenerator(config, tiny_tokenizer())
    prompts = tokenize_prompts(TEXTS, tiny_tokenizer())
    drawn = generator.generate(
        prompts, SamplingConfig(temperature=0, top_p=1.0, max_new_tokens=12), seed=0
    )
    assert [one[0].ids for one in drawn] == [one.ids for one in in_process(TEXTS)]


def test_our_own_client_keeps_one_adapter_at_a_time_on_our_own_server(shelf, serve):
    folder = shelf / "adapters"
    policy = RunPolicy(PolicyConfig(base=str(shelf / "base")), seed=0)
    with serve(shelf, names=("one",), adapters_folder=folder, max_adapters=2) as client:
        config = ServedPolicyConfig(
            url=f"{client.base_url}/v1", model="base", loads_adapters=True, n_retries=0
        )
        engine = ServerEngine(config, policy)
        for name in ("two", "three", "three", "two"):
            drawn = engine.trained(folder / name).generate(
                [[1, 2]], SamplingConfig(temperature=0, top_p=1.0, max_new_tokens=2), seed=0
            )
            assert len(drawn[0][0].ids) == 2
            assert len(client.engine.adapters.served()) == 3
        engine.close()
        assert [each.name for each in client.engine.adapters.served()] == ["base", "one"]


def test_rows_that_join_and_leave_at_different_times_do_not_touch_each_other(client):
    lengths = [1, 40, 3, 25, 8, 60, 2, 33, 17, 5]
    bodies = [
        {
            "model": ("base", "one", "two")[index % 3],
            "prompt": "p" * (1 + 7 * index),
            "temperature": 0.0 if index % 2 else 1.0,
            "seed": index,
            "max_tokens": length,
        }
        for index, length in enumerate(lengths)
    ]

    def ask(body):
        return client.post("/v1/completions", json=body).json()["choices"]

    alone = [ask(body) for body in bodies]
    with ThreadPoolExecutor(len(bodies)) as pool:
        assert list(pool.map(ask, bodies)) == alone


def test_no_two_seeds_share_a_sample_and_equal_seeds_share_all(client):
    def draw(seed, **asked):
        body = {"model": "base", "prompt": "x", "max_tokens": 16, "n": 4, "seed": seed, **asked}
        choices = client.post("/v1/completions", json=body).json()["choices"]
        return [choice["text"] for choice in choices]

    drawn = {seed: draw(seed) for seed in (0, 1, 2, 3, -5, 2**63 - 1)}
    assert len({text for texts in drawn.values() for text in texts}) == 4 * len(drawn)
    assert {seed: draw(seed) for seed in drawn} == drawn
    # The first choices are the same however many are asked for, or whom they are asked together.
    assert draw(2, n=2) == drawn[2][:2]
    assert draw(2, n=2, prompt=["x", "x"]) == drawn[2]


def test_a_model_can_be_asked_for_by_its_name(client):
    listed = {row["id"]: row for row in client.get("/v1/models").json()["data"]}
    for name in ("base", "two"):
        assert client.get(f"/v1/models/{name}").json() == listed[name]
    for name in ("nobody", "org/nobody", ""):
        missing = client.get(f"/v1/models/{name}")
        assert missing.status_code == 404
        assert missing.json()["error"]["param"] == "model"


def test_a_temperature_next_to_zero_takes_the_likeliest_tokens(client):
    body = {"model": "two", "prompt": "Hello", "max_tokens": 8}
    cold, coldest = (
        client.post("/v1/completions", json={**body, "temperature": temperature}).json()
        for temperature in (0, 1e-40)
    )
    assert coldest["choices"] == cold["choices"]


def test_numbers_are_counted(client):
    before = {
        kind: metric(client, f'trillium_serve_tokens_total{{kind="{kind}"}}') for kind in KINDS
    }
    body = {"model": "one", "prompt": "four", "temperature": 0, "max_tokens": 5, "n": 2}
    client.post("/v1/completions", json=body)
    after = {
        kind: metric(client, f'trillium_serve_tokens_total{{kind="{kind}"}}') for kind in KINDS
    }
    assert after["prompt"] - before["prompt"] == 4
    assert after["generated"] - before["generated"] == 10
    assert metric(client, "trillium_serve_adapters") == 2
    assert metric(client, "trillium_serve_up") == 1
    assert metric(client, "trillium_serve_running") == 0


KINDS = ("prompt", "generated")


def test_a_token_is_asked_for_everywhere_but_for_health(shelf, serve):
    with serve(shelf, names=("one",), token="a-secret") as client:
        body = {"model": "one", "prompt": "x", "max_tokens": 1}
        assert client.post("/v1/completions", json=body).status_code == 200
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "a-secret"}):
            client.headers.pop("Authorization", None)
            for method, route in (
                ("POST", "/v1/completions"),
                ("POST", "/v1/load_lora_adapter"),
                ("GET", "/v1/models"),
                ("GET", "/metrics"),
            ):
                refused = client.request(method, route, headers=header)
                assert refused.status_code == 401
                assert refused.headers["www-authenticate"] == "Bearer"
            assert client.get("/health", headers=header).status_code == 200


def test_a_full_queue_says_so_and_takes_requests_again_later(shelf, serve):
    with serve(shelf, names=("one",), max_rows=1, max_waiting=1) as client:
        body = {"model": "one", "prompt": "x", "max_tokens": 2, "temperature": 0}
        too_many = client.post("/v1/completions", json={**body, "n": 3})
        assert too_many.status_code == 400
        with client.stream(
            "POST", "/v1/completions", json={**body, "max_tokens": 900, "stream": True}
        ) as first:
            lines = first.iter_lines()
            next(lines)  # it runs; now the only place to wait is taken, too
            with client.stream("POST", "/v1/completions", json={**body, "stream": True}):
                refused = client.post("/v1/completions", json=body)
                assert refused.status_code == 429
                assert refused.headers["retry-after"] == "1"
        statuses = {client.post("/v1/completions", json=body).status_code for _ in range(300)}
        assert statuses <= {200, 429}  # until both rows that nobody reads have left
        assert client.post("/v1/completions", json=body).status_code == 200


def test_lengths_are_bounded_and_the_sentence_says_by_what(shelf, serve):
    with serve(shelf, names=("one",), max_length=32, max_new_tokens=8) as client:

        def ask(n_prompt, n_tokens):
            body = {"model": "one", "prompt": "p" * n_prompt, "max_tokens": n_tokens}
            return client.post("/v1/completions", json=body)

        assert ask(24, 8).status_code == 200
        assert "at most 7" in ask(25, 8).json()["error"]["message"]
        assert "at most 8" in ask(4, 9).json()["error"]["message"]
        assert "32 tokens (at most 31)" in ask(32, 1).json()["error"]["message"]
        body = {"model": "one", "messages": [{"role": "user", "content": "p"}], "temperature": 0}
        answer = client.post("/v1/chat/completions", json=body).json()
        assert answer["usage"]["completion_tokens"] == 8
        # Whoever names no length gets OpenAI's sixteen tokens, or what there may be.
        answer = client.post("/v1/completions", json={"model": "one", "prompt": "p"}).json()
        assert answer["usage"]["completion_tokens"] <= 8
