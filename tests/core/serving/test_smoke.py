"""What any OpenAI-compatible server of adapters must do: ours, or the one behind a URL.

    TRILLIUM_SMOKE_URL=http://127.0.0.1:8000 pytest tests/core/serving/test_smoke.py

asks that server instead; TRILLIUM_SMOKE_KEY is its token, and TRILLIUM_SMOKE_ADAPTER a folder that
it may load (vLLM: started with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1).
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

URL = os.environ.get("TRILLIUM_SMOKE_URL")
GREEDY = {"temperature": 0, "max_tokens": 12}
PROMPTS = [f"Write the number {number} in words" + "!" * (number % 7) for number in range(20)]


@pytest.fixture(scope="module")
def http(request):
    if URL is None:
        yield request.getfixturevalue("client")
        return
    key = os.environ.get("TRILLIUM_SMOKE_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx2.Client(base_url=URL, headers=headers, timeout=300) as client:
        yield client


@pytest.fixture(scope="module")
def names(http):
    """The base first, then its adapters."""
    rows = http.get("/v1/models").json()["data"]
    base = [row["id"] for row in rows if not row.get("parent")]
    adapters = [row["id"] for row in rows if row.get("parent")]
    assert len(base) == 1
    assert adapters, "serve at least one adapter"
    return base + adapters


def complete(http, model, prompt, **fields):
    answer = http.post(
        "/v1/completions", json={"model": model, "prompt": prompt, **GREEDY, **fields}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def read_events(http, route, body):
    with http.stream("POST", route, json={**body, "stream": True}) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_every_adapter_writes_its_own_text(http, names):
    texts = {name: complete(http, name, PROMPTS[0])["choices"][0]["text"] for name in names}
    assert len(set(texts.values())) == len(names)


def test_a_greedy_answer_is_repeated_and_counted(http, names):
    first, second = (complete(http, names[-1], PROMPTS[1]) for _ in range(2))
    assert first["choices"][0]["text"] == second["choices"][0]["text"]
    usage = first["usage"]
    assert usage["completion_tokens"] <= 12
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert first["model"] == names[-1]


def test_streamed_pieces_are_the_whole_answer(http, names):
    body = {"model": names[-1], "prompt": PROMPTS[2], **GREEDY}
    whole = complete(http, names[-1], PROMPTS[2])["choices"][0]
    events = read_events(http, "/v1/completions", body)
    choices = [event["choices"][0] for event in events]
    assert "".join(choice["text"] for choice in choices) == whole["text"]
    assert [choice["finish_reason"] for choice in choices][-1] == whole["finish_reason"]


def test_a_stream_can_end_with_its_usage(http, names):
    body = {"model": names[0], "prompt": PROMPTS[3], **GREEDY}
    events = read_events(
        http, "/v1/completions", {**body, "stream_options": {"include_usage": True}}
    )
    assert events[-1]["choices"] == []
    expected = complete(http, names[0], PROMPTS[3])["usage"]
    for kind in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert events[-1]["usage"][kind] == expected[kind]


def test_a_conversation_is_answered_whole_and_streamed(http, names):
    body = {"model": names[-1], "messages": [{"role": "user", "content": "Hello"}], **GREEDY}
    answer = http.post("/v1/chat/completions", json=body).json()
    message = answer["choices"][0]["message"]
    assert message["role"] == "assistant"
    deltas = [
        event["choices"][0]["delta"] for event in read_events(http, "/v1/chat/completions", body)
    ]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content") or "" for delta in deltas) == message["content"]


def test_a_stop_string_ends_the_answer_before_it(http, names):
    text = complete(http, names[-1], PROMPTS[4], max_tokens=24)["choices"][0]["text"]
    stop = text[len(text) // 2 : len(text) // 2 + 2]
    choice = complete(http, names[-1], PROMPTS[4], max_tokens=24, stop=stop)["choices"][0]
    assert choice["text"] == text[: text.index(stop)]
    assert choice["finish_reason"] == "stop"


def test_max_tokens_is_the_length_of_the_answer(http, names):
    answer = complete(http, names[-1], PROMPTS[0], max_tokens=3)
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["choices"][0]["finish_reason"] == "length"


def test_seeds_decide_what_is_sampled(http, names):
    fields = {"temperature": 1.0, "n": 2, "max_tokens": 16}
    first = complete(http, names[0], PROMPTS[5], seed=7, **fields)["choices"]
    again = complete(http, names[0], PROMPTS[5], seed=7, **fields)["choices"]
    other = complete(http, names[0], PROMPTS[5], seed=8, **fields)["choices"]
    texts = [[choice["text"] for choice in choices] for choices in (first, again, other)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]
    assert texts[0][0] != texts[0][1]


def test_several_prompts_are_answered_in_order(http, names):
    together = complete(http, names[-1], PROMPTS[:3])["choices"]
    assert [choice["index"] for choice in together] == [0, 1, 2]
    alone = [complete(http, names[-1], prompt)["choices"][0]["text"] for prompt in PROMPTS[:3]]
    assert [choice["text"] for choice in together] == alone


def test_twenty_requests_at_once_get_what_they_get_alone(http, names):
    asked = [(names[index % len(names)], prompt) for index, prompt in enumerate(PROMPTS)]
    alone = [complete(http, *one)["choices"][0]["text"] for one in asked]
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda one: complete(http, *one)["choices"][0]["text"], asked))
    if URL is None:
        assert together == alone
    # Servers that round differently in a batch change a few texts; mixed-up adapters change most.
    agreed = sum(one == other for one, other in zip(together, alone, strict=True))
    assert agreed > len(alone) / 2


def test_a_model_that_is_not_there_is_404(http):
    answer = http.post("/v1/completions", json={"model": "nobody", "prompt": "x"})
    assert answer.status_code == 404
    assert "nobody" in answer.json()["error"]["message"]


def test_an_adapter_comes_and_goes(http, names):
    path = os.environ.get("TRILLIUM_SMOKE_ADAPTER") if URL else "three"
    if path is None:
        pytest.skip("TRILLIUM_SMOKE_ADAPTER names no folder that the server may load")
    loaded = http.post("/v1/load_lora_adapter", json={"lora_name": "guest", "lora_path": path})
    assert loaded.status_code == 200, loaded.text
    texts = [complete(http, name, PROMPTS[0])["choices"][0]["text"] for name in (*names, "guest")]
    assert len(set(texts)) == len(texts)
    again = http.post("/v1/load_lora_adapter", json={"lora_name": "guest", "lora_path": path})
    assert again.status_code == 400
    assert http.post("/v1/unload_lora_adapter", json={"lora_name": "guest"}).status_code == 200
    gone = http.post("/v1/completions", json={"model": "guest", "prompt": "x"})
    assert gone.status_code == 404
    assert http.post("/v1/unload_lora_adapter", json={"lora_name": "guest"}).status_code == 404
    assert complete(http, names[-1], PROMPTS[0])["choices"][0]["text"] == texts[len(names) - 1]


def test_the_server_says_that_it_is_well(http):
    assert http.get("/health").status_code == 200
    assert "# TYPE" in http.get("/metrics").text
