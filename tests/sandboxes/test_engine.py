"""The queue of a backend, used directly: tickets, replies as they come, and waking up."""

import threading

from trillium_sandbox import Request
from trillium_sandbox.embedded import EmbeddedBackend


def _script(name, source="print(1)"):
    return Request(name, "script", source.encode())


def test_tickets_find_their_replies_in_whatever_order_they_come():
    with EmbeddedBackend(2, n_workers=2) as backend:
        slow = backend.submit(_script("slow", "import time\ntime.sleep(0.5)"))
        quick = [backend.submit(_script(f"quick-{n}")) for n in range(4)]
        order: list[int] = []
        names: dict[int, str] = {}
        while len(order) < 5:
            for ticket, reply in backend.collect().items():
                order.append(ticket)
                names[ticket] = reply.id
        assert order[0] in quick
        assert names == {slow: "slow", **{t: f"quick-{n}" for n, t in enumerate(quick)}}


def test_a_bell_from_another_thread_ends_a_wait():
    with EmbeddedBackend(2, n_workers=1) as backend:
        bell = threading.Timer(0.05, backend.wake)
        bell.start()
        assert backend.collect(timeout_s=60.0) == {}
        bell.join()


def test_forgotten_requests_are_never_answered():
    with EmbeddedBackend(2, n_workers=1) as backend:
        hung = backend.submit(_script("hung", "while True: pass"))
        queued = backend.submit(_script("queued"))
        backend.forget([hung, queued])
        wanted = backend.submit(_script("wanted"))
        replies: dict[int, str] = {}
        while wanted not in replies:
            replies |= {ticket: reply.id for ticket, reply in backend.collect().items()}
        assert replies == {wanted: "wanted"}
