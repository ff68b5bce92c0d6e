"""A real HTTP server that answers chat completions by a rule, and a tiny model in a folder."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from trillium.policies.tiny import tiny_policy, tiny_tokenizer


class _Endpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = request["messages"][0]["content"]
        self.server.requests.append(request)
        answer = self.server.rule(question, request["seed"])
        message = {"message": {"content": answer}, "finish_reason": "stop"}
        body = json.dumps({"choices": [message]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@contextmanager
def serve_rule(rule):
    """Serve `rule`, from a question and a seed to an answer; yields the server with its name."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint)
    server.rule, server.requests = rule, []
    server.who = f"http://127.0.0.1:{server.server_port}/v1#rule"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def serving():
    return serve_rule


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A tiny model with a chat template, in a folder."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = tiny_tokenizer()
    tiny_policy(seed=3).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
