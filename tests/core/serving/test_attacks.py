"""What strangers send: too much, the wrong thing, half of it, or a path that leads elsewhere."""

import json
import re
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from trillium.errors import BackendError
from trillium.generation.cache import growing_cache
from trillium.generation.interface import SamplingConfig
from trillium.serving.launch import LaunchSettings, open_engine
from trillium.serving.rows import RefusedError, Row
from trillium.serving.sources import Sources
from trillium.serving.text_stream import TextStream

BODY = {"model": "one", "prompt": "x", "max_tokens": 2, "temperature": 0}


def running(client):
    text = client.get("/metrics").text
    return sum(
        float(re.search(rf"^trillium_serve_{name} (\S+)$", text, re.MULTILINE)[1])
        for name in ("running", "waiting")
    )


def generated(client):
    text = client.get("/metrics").text
    found = re.search(r'^trillium_serve_tokens_total{kind="generated"} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def wait_until_idle(client):
    for _ in range(3000):
        if running(client) == 0:
            return
        time.sleep(0.01)
    pytest.fail("rows that nobody waits for are still decoded")


@pytest.fixture(autouse=True)
def serves_afterwards(client):
    yield
    assert client.post("/v1/completions", json=BODY).status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 1),
        ("model", None),
        ("prompt", None),
        ("prompt", []),
        ("prompt", [[]]),
        ("prompt", [[1], "x"]),
        ("prompt", [1.5]),
        ("prompt", [-1]),
        ("prompt", [260]),
        ("prompt", [10**30]),
        ("prompt", [True]),
        ("prompt", ""),
        ("n", 0),
        ("n", 10**9),
        ("n", "2"),
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", 10**12),
        ("max_tokens", 1.5),
        ("temperature", -0.1),
        ("temperature", 1e300),
        ("temperature", "hot"),
        ("top_p", 0),
        ("top_p", 1.01),
        ("stop", ""),
        ("stop", [""]),
        ("stop", ["s"] * 17),
        ("stop", 5),
        ("seed", 2**64),
        ("stream", "yes"),
        ("stream_options", {"include": True}),
        ("stream_options", {"include_usage": True}),
        ("min_p", 0.1),
        ("repetition_penalty", 1.1),
        ("echo", True),
        ("logprobs", 5),
        ("best_of", 2),
        ("suffix", "end"),
        ("presence_penalty", 0.5),
        ("logit_bias", {"5": 100}),
        ("guided_json", {}),
    ],
)
def test_a_wrong_field_is_refused_by_name(client, field, value):
    answer = client.post("/v1/completions", json={**BODY, field: value})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert field in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "hello",
        [{"role": "user"}],
        [{"content": "x"}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc"}}]}],
        [{"role": "user", "content": "x", "tool_calls": []}],
    ],
)
def test_a_wrong_conversation_is_refused(client, messages):
    body = {"model": "one", "messages": messages, "max_tokens": 2}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert "messages" in answer.json()["error"]["message"]


def test_values_that_only_say_what_happens_anyway_are_taken(client):
    neutral = {
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "best_of": 1,
        "echo": False,
        "logprobs": None,
        "stop": None,
        "user": "someone",
        "stream": False,
        "top_k": -1,
        "n": None,
        "min_p": 0,
        "repetition_penalty": 1.0,
        "stream_options": None,
    }
    assert client.post("/v1/completions", json={**BODY, **neutral}).status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"model": "one", "prompt": ' + b"[" * 100_000,
        b'{"model": "one", "prompt": "\\ud800"}',
        b'{"model": NaN}',
    ],
)
def test_what_is_no_request_is_400(client, content):
    for route in ("/v1/completions", "/v1/chat/completions", "/v1/load_lora_adapter"):
        answer = client.post(route, content=content)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["message"]


def test_a_body_too_large_is_refused_whether_or_not_it_says_its_size(client):
    large = json.dumps({**BODY, "prompt": "x" * (5 << 20)}).encode()
    assert client.post("/v1/completions", content=large).status_code == 413

    def chunks():
        for start in range(0, len(large), 1 << 16):
            yield large[start : start + (1 << 16)]

    assert client.post("/v1/completions", content=chunks()).status_code == 413


def test_a_million_prompts_are_refused_before_anything_is_made_of_them(client):
    answer = client.post("/v1/completions", json={**BODY, "prompt": ["a"] * 500_000})
    assert answer.status_code == 400
    assert "500000 completions in one request (at most 72)" in answer.json()["error"]["message"]


def test_a_prompt_longer_than_the_model_reads_is_refused(client):
    answer = client.post("/v1/completions", json={**BODY, "prompt": "x" * 100_000})
    assert answer.status_code == 400
    assert "100000 tokens" in answer.json()["error"]["message"]


@pytest.mark.parametrize("n", [1, 3])
def test_a_stream_that_nobody_reads_any_more_is_not_decoded(client, n):
    body = {**BODY, "prompt": "x", "max_tokens": 1000, "stream": True, "n": n}
    before = generated(client)
    with client.stream("POST", "/v1/completions", json=body) as reply:
        next(reply.iter_lines())
    wait_until_idle(client)
    assert 0 < generated(client) - before < 1000 * n


def test_a_client_that_hangs_up_without_streaming_ends_its_row(client):
    import socket

    body = json.dumps({**BODY, "max_tokens": 1000}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(head.encode() + body)
        while running(client) == 0:
            time.sleep(0.001)
    wait_until_idle(client)
    assert 'code="499"' in client.get("/metrics").text


def load(client, path, name="guest"):
    return client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": path})


def unload(client, name="guest"):
    return client.post("/v1/unload_lora_adapter", json={"lora_name": name})


def test_an_adapter_unloaded_while_it_writes_finishes_and_is_then_gone(client):
    assert load(client, "three").status_code == 200
    body = {**BODY, "model": "guest", "max_tokens": 100, "prompt": "finish"}
    expected = client.post("/v1/completions", json=body).json()["choices"][0]
    with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as reply:
        lines = reply.iter_lines()
        text = json.loads(next(lines).removeprefix("data: "))["choices"][0]["text"]
        assert unload(client).status_code == 200
        assert client.post("/v1/completions", json=body).status_code == 404
        # The name is free at once, and means the new adapter to whoever asks from now on.
        assert load(client, "two").status_code == 200
        other = client.post("/v1/completions", json=body).json()["choices"][0]
        for line in lines:
            if line.startswith("data: {"):
                text += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
    assert text == expected["text"]
    assert other["text"] != text
    assert (
        other["text"]
        == client.post("/v1/completions", json={**body, "model": "two"}).json()["choices"][0][
            "text"
        ]
    )
    assert unload(client).status_code == 200
    wait_until_idle(client)
    held = client.engine.adapters._model.peft_config
    assert len(held) == 1 + 2  # the one that is never switched on, and what is still served


def test_rows_of_an_adapter_that_was_unloaded_meanwhile_are_refused(client):
    """A request that had found the adapter is encoded while another one unloads it."""
    assert load(client, "three").status_code == 200
    engine = client.engine
    key = engine.adapters.find("guest").key
    assert unload(client).status_code == 200
    # The second token of any other row comes after the weights are gone.
    client.post("/v1/completions", json={**BODY, "max_tokens": 4})
    assert key not in engine.adapters._model.peft_config
    text = TextStream(lambda ids: "", ())
    row = Row(key, (1, 2), SamplingConfig(), torch.Generator(), text, lambda piece: None)
    with pytest.raises(RefusedError, match="was unloaded") as refused:
        engine.submit([row])
    assert refused.value.status == 404


def test_no_logits_are_computed_for_an_adapter_that_is_not_on_the_model(shelf):
    sources = Sources(str(shelf / "base"), {"one": shelf / "adapters" / "one"})
    with open_engine(sources, LaunchSettings(dtype="float32", base_name="base")) as (engine, _):
        adapters = engine.adapters
    ids = torch.tensor([[1, 2, 3]])
    for keys in (["gone"], [None, "gone"]):
        cache = growing_cache(adapters.config)
        with pytest.raises(BackendError, match="adapter gone is not on the model"):
            adapters.forward(keys, input_ids=ids.expand(len(keys), -1), past_key_values=cache)


def test_routes_and_methods_that_there_are_not_are_refused_in_openais_shape(client):
    for method, route, status in (
        ("GET", "/v1/nothing", 404),
        ("POST", "/", 404),
        ("GET", "/v1/completions", 405),
        ("DELETE", "/v1/models", 405),
    ):
        answer = client.request(method, route)
        assert answer.status_code == status
        error = answer.json()["error"]
        assert error["code"] == status
        assert f"{method} {route}: " in error["message"]
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize(
    "path",
    ["../base", "../../etc", "/etc", "/", "three/../../base", "~/", "three\0", "x" * 4096, "."],
)
def test_no_path_leads_out_of_the_folder(client, path):
    answer = load(client, path)
    assert answer.status_code in (400, 403)
    assert str(client.engine.adapters.config._name_or_path) not in answer.text
    assert "guest" not in [row["id"] for row in client.get("/v1/models").json()["data"]]


def test_links_that_lead_out_of_the_folder_are_not_followed(client, shelf, tmp_path):
    adapters = shelf / "adapters"
    shutil.copytree(adapters / "three", tmp_path / "outside")
    (adapters / "link").symlink_to(tmp_path / "outside")
    half = adapters / "half"
    half.mkdir()
    shutil.copy(adapters / "three" / "adapter_config.json", half)
    (half / "adapter_model.safetensors").symlink_to(
        tmp_path / "outside" / "adapter_model.safetensors"
    )
    try:
        assert load(client, "link").status_code == 403
        assert load(client, "half").status_code == 403
    finally:
        (adapters / "link").unlink()
        shutil.rmtree(half)


def damaged(shelf, tmp_path, change):
    folder = shelf / "adapters" / "damaged"
    shutil.copytree(shelf / "adapters" / "three", folder)
    change(folder)
    return folder


def make_pickle(folder):
    weights = load_file(folder / "adapter_model.safetensors")
    torch.save(weights, folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()


def make_nan(folder):
    weights = load_file(folder / "adapter_model.safetensors")
    next(iter(weights.values()))[0, 0] = float("nan")
    save_file(weights, folder / "adapter_model.safetensors")


def make_short(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def make_wider(folder):
    weights = load_file(folder / "adapter_model.safetensors")
    wide = {key: torch.cat([w, w], dim=1) if "lora_A" in key else w for key, w in weights.items()}
    save_file(wide, folder / "adapter_model.safetensors")


def make_dora(folder):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_dora": True}))


def make_other_base(folder):
    path = folder / "adapter_config.json"
    fields = {**json.loads(path.read_text()), "base_model_name_or_path": "someone/else"}
    path.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (make_pickle, "adapter_model.safetensors"),
        (make_nan, "no numbers"),
        (make_short, "cannot be read"),
        (make_wider, "does not fit"),
        (make_dora, "use_dora"),
    ],
)
def test_a_damaged_adapter_is_refused_and_leaves_nothing(client, shelf, tmp_path, change, said):
    before = dict(client.engine.adapters._model.peft_config)
    folder = damaged(shelf, tmp_path, change)
    try:
        answer = load(client, "damaged")
        assert answer.status_code == 400
        assert said in answer.json()["error"]["message"]
        assert str(shelf) not in answer.text
    finally:
        shutil.rmtree(folder)
    assert client.engine.adapters._model.peft_config == before


def test_there_is_a_most_of_adapters_and_names_are_plain(client):
    for number in range(2):
        assert load(client, "three", f"guest-{number}").status_code == 200
    assert load(client, "three", "guest-2").status_code == 409
    for number in range(2):
        assert unload(client, f"guest-{number}").status_code == 200
    for name in ("base", "one"):
        assert load(client, "three", name).status_code == 400
    for name in ("", "../x", "a b", "x" * 200, 'a"b', "\n"):
        assert load(client, "three", name).status_code == 400
    assert unload(client, "base").status_code == 404


def test_loading_is_off_unless_a_folder_is_given(shelf, serve):
    with serve(shelf, names=("one",)) as closed:
        assert load(closed, "three").status_code == 403
        assert load(closed, str(shelf / "adapters" / "three")).status_code == 403
