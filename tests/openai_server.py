"""A real HTTP server that speaks OpenAI's protocol, around a policy in this process.

Not a test: tests that need a server load this file. It answers completions, lists its models, and
loads adapters by their folder and lets them go, as vLLM does.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from trillium.generation import PromptBatch, SamplingConfig
from trillium.generation.in_process import TransformersGenerator
from trillium.generation.with_adapter import AdapterGenerator
from trillium.policies.adapters import load_second_adapter

EMPTY: Mapping[str, str] = {}


class PolicyServer(ThreadingHTTPServer):
    """Serve a policy as `tiny`; `failures` are statuses to answer first."""

    daemon_threads = True

    def __init__(self, model, tokenizer) -> None:
        super().__init__(("127.0.0.1", 0), Endpoint)
        self.model = model
        self.policy = TransformersGenerator(model, tokenizer)
        self.adapters: dict[str, object] = {}
        self.failures: list[int] = []
        self.requests: list[dict] = []
        self.keys: list[str | None] = []
        self.sends_ids = True
        self.lists_models = True
        self.n_lost = 0
        self.elsewhere = ""  # an address that every answer sends to
        self.turn = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def generator(self, name: str):
        if name == "tiny":
            return self.policy
        return AdapterGenerator(self.policy, self.model, self.adapters[name])


class Endpoint(BaseHTTPRequestHandler):
    server: PolicyServer

    def do_GET(self) -> None:
        self.server.keys.append(self.headers.get("Authorization"))
        if self.server.elsewhere:
            self.reply(302, {}, {"Location": self.server.elsewhere})
        elif self.path == "/v1/models" and self.server.lists_models:
            self.reply(200, {"data": [{"id": name} for name in ("tiny", *self.server.adapters)]})
        else:
            self.reply(404, {"error": "no such page"})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.turn:  # a model works on one batch at a time
            self.server.requests.append(request)
            self.server.keys.append(self.headers.get("Authorization"))
            if self.server.elsewhere:
                self.reply(307, {}, {"Location": self.server.elsewhere})
            elif self.server.failures:
                self.reply(self.server.failures.pop(0), {"error": "try later"})
            elif self.path == "/v1/completions":
                self.reply(200, {"choices": self.complete(request)})
            elif self.path == "/v1/load_lora_adapter":
                name = request["lora_name"]
                load_second_adapter(self.server.model, Path(request["lora_path"]), name)
                self.server.adapters[name] = name
                self.reply(200, {})
            elif self.path == "/v1/unload_lora_adapter":
                self.server.model.delete_adapter(self.server.adapters.pop(request["lora_name"]))
                self.reply(200, {})
            else:
                self.reply(404, {"error": "no such page"})

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
        groups = self.server.generator(request["model"]).generate_batch(batch, sampling)
        choices = []
        for index, one in enumerate(one for group in groups for one in group):
            choices.append({"index": index, "text": one.text, "finish_reason": one.finish})
            if request.get("return_token_ids") and self.server.sends_ids:
                choices[-1]["token_ids"] = one.ids
        return choices[self.server.n_lost :][::-1]

    def reply(self, status: int, content: dict, headers: Mapping[str, str] = EMPTY) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test output clean."""


@contextmanager
def serving(model, tokenizer) -> Iterator[PolicyServer]:
    """Serve a policy until the block ends."""
    with PolicyServer(model, tokenizer) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()
