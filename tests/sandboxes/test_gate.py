"""The door of the service, without a socket: what it does with clients that stop half way."""

import asyncio
import json

import pytest
from trillium_sandbox.service.gate import Gate

SCOPE = {"type": "http", "path": "/run", "headers": []}


class Counter:
    def __init__(self):
        self.counted = []

    def count_request(self, path, status, seconds):
        self.counted.append(status)


async def read_all(scope, receive, send):
    """Answer with the length of the body, as an application would."""
    n_bytes, has_more = 0, True
    while has_more:
        message = await receive()
        n_bytes, has_more = n_bytes + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % n_bytes})


def ask(messages, *, takes=True):
    """Return the status that was counted and what was sent; then the client falls silent."""
    counter, sent = Counter(), []
    gate = Gate(
        read_all,
        metrics=counter,
        token=None,
        max_body_bytes=1 << 20,
        max_held_bytes=1 << 20,
        patience_s=0.05,
    )

    async def serve():
        waiting = iter(messages)

        async def receive():
            for message in waiting:
                return message
            return await asyncio.Future()

        async def send(message):
            if not takes:
                await asyncio.Future()
            sent.append(message)

        await gate(SCOPE, receive, send)

    asyncio.run(serve())
    return counter.counted, sent


def body(content, *, more):
    return {"type": "http.request", "body": content, "more_body": more}


def test_a_whole_body_is_served():
    counted, sent = ask([body(b"abc", more=True), body(b"de", more=False)])
    assert counted == [200]
    assert sent[-1]["body"] == b"5"


def test_a_body_that_does_not_end_is_refused():
    counted, sent = ask([body(b"abc", more=True)])
    assert counted == [408]
    assert "took more than 0.05 s" in json.loads(sent[1]["body"])["error"]


@pytest.mark.parametrize("messages", [[body(b"abc", more=True), {"type": "http.disconnect"}]])
def test_a_client_that_hangs_up_is_not_answered(messages):
    assert ask(messages) == ([499], [])


def test_a_client_that_takes_no_answer_is_let_go():
    counted, _ = ask([body(b"abc", more=False)], takes=False)
    assert counted == [200]
