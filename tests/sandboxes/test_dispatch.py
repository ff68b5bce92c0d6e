"""A dispatcher shared by threads, futures and tasks, over a backend that may die."""

import asyncio
import contextlib
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from trillium_sandbox import Request, RequestError, SandboxError, dispatch
from trillium_sandbox.aio import AsyncSandbox
from trillium_sandbox.dispatch import Dispatcher, QueueFullError
from trillium_sandbox.embedded import EmbeddedBackend
from trillium_sandbox.fair import MAX_UNTAKEN_BYTES, Call, FairQueue, Place
from trillium_sandbox.verdicts import Reply

HANG = "while True: pass"


def script(name, source="print(1)"):
    return Request(name, "script", source.encode())


def scripts(prefix, n):
    return [script(f"{prefix}{number}", f"print({number})") for number in range(n)]


def open_one():
    return EmbeddedBackend(2, n_workers=1)


@pytest.fixture(scope="module")
def dispatcher():
    with Dispatcher(lambda: EmbeddedBackend(2, n_workers=2)) as opened:
        yield opened


def test_threads_share_a_backend_and_each_reads_its_own_replies_in_order(dispatcher):
    def run(caller):
        return [
            (reply.id, reply.stdout) for reply in dispatcher.run(iter(scripts(f"{caller}-", 40)))
        ]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(run, range(8)))
    assert results == [[(f"{c}-{n}", b"%d\n" % n) for n in range(40)] for c in range(8)]
    assert dispatcher.queue.n_open == 0


def test_a_future_holds_the_reply(dispatcher):
    assert dispatcher.submit(script("a", "print(6 * 7)")).result().stdout == b"42\n"


def test_a_cancelled_future_forgets_its_program():
    with Dispatcher(open_one) as dispatcher:
        hung = dispatcher.submit(script("hung", HANG))
        assert hung.cancel()
        assert dispatcher.run_one(script("next")).status == "ok"
        assert dispatcher.queue.n_open == 0


def test_leaving_a_run_forgets_the_rest():
    with Dispatcher(open_one) as dispatcher:
        with contextlib.closing(dispatcher.run([script("a"), script("b", HANG)])) as replies:
            assert next(replies).id == "a"
        assert dispatcher.run_one(script("c")).status == "ok"
        assert dispatcher.queue.n_open == 0


def test_callers_take_turns():
    queue = FairQueue(100, 1 << 30, lambda: None)
    long, short = Call(queue, lambda: None), Call(queue, lambda: None)
    assert long.offer(scripts("long", 4))
    assert short.offer(scripts("short", 2))
    order = []
    while (place := queue.next_place()) is not None:
        order.append(place.request.id)
    assert order == ["long0", "short0", "long1", "short1", "long2", "long3"]


def test_the_queue_is_bounded_in_programs_and_in_bytes_and_says_when_there_is_room():
    told = []
    queue = FairQueue(3, 1000, lambda: None)
    first, second = Call(queue, lambda: None), Call(queue, lambda: told.append(1))
    assert first.offer(scripts("a", 2))
    assert not second.offer(scripts("b", 2))
    assert not second.offer([script("b", "x" * 999)])
    assert second.offer(scripts("b", 1))
    first.cancel()
    queue.settle([])
    assert told == [1]
    assert second.offer([script("b", "x" * 900)])
    assert queue.n_open == 2


def test_a_full_queue_is_said_at_once_and_a_run_waits_for_room():
    with Dispatcher(open_one, max_programs=2) as dispatcher:
        hung = [dispatcher.submit(script(f"hung{n}", HANG)) for n in range(2)]
        with pytest.raises(QueueFullError, match="2 programs are waiting already"):
            dispatcher.submit(script("one more"))
        threading.Timer(0.05, lambda: [future.cancel() for future in hung]).start()
        assert [reply.status for reply in dispatcher.run(scripts("c", 9))] == ["ok"] * 9


def test_a_queue_that_could_not_hold_a_request_is_refused():
    with pytest.raises(RequestError, match="a queue of 0 programs"):
        Dispatcher(open_one, max_programs=0)


def test_a_backend_that_does_not_open_says_why():
    def refuse():
        raise SandboxError("level 2: unshare refused")

    with pytest.raises(SandboxError, match="unshare refused"):
        Dispatcher(refuse)


class Mortal(EmbeddedBackend):
    """A backend whose workers cannot be replaced."""

    def _add_worker(self):
        if self.n_restarts:
            raise SandboxError("level 2: no memory")
        super()._add_worker()


def test_a_dead_backend_is_opened_again_and_what_waited_goes_on():
    opened = []

    def open_mortal():
        opened.append(Mortal(2, n_workers=1))
        return opened[-1]

    with Dispatcher(open_mortal) as dispatcher:
        replies = dispatcher.run(scripts("a", 300))
        seen = [next(replies)]
        os.kill(opened[0].worker_pids[0], signal.SIGKILL)
        seen += replies
        assert [reply.id for reply in seen] == [f"a{n}" for n in range(300)]
        statuses = {reply.status for reply in seen}
        assert statuses == {"ok", "sandbox_error"}
        assert seen[-1].status == "ok"
        failed = [reply for reply in seen if reply.status == "sandbox_error"]
        assert len(failed) <= dispatcher.window
        assert failed[0].stderr == b"level 2: no memory"
        assert (dispatcher.n_reopened, dispatcher.n_restarts) == (1, 1)


def test_a_backend_that_stays_dead_answers_what_waits_and_refuses_the_rest(monkeypatch):
    monkeypatch.setattr(dispatch, "_PATIENCE_S", 0.0)
    opened = []

    def open_once():
        if opened:
            raise SandboxError("no daemon")
        opened.append(Mortal(2, n_workers=1))
        return opened[0]

    with Dispatcher(open_once) as dispatcher:
        hung = [dispatcher.submit(script(f"hung{n}", HANG)) for n in range(40)]
        os.kill(opened[0].worker_pids[0], signal.SIGKILL)
        assert {future.result().status for future in hung} == {"sandbox_error"}
        with pytest.raises(SandboxError, match=r"the backend is down \(no daemon\)"):
            dispatcher.submit(script("late"))


def test_closing_answers_what_is_open():
    dispatcher = Dispatcher(open_one)
    futures = [dispatcher.submit(script(f"hung{n}", HANG)) for n in range(40)]
    dispatcher.close()
    assert {future.result().status for future in futures} == {"sandbox_error"}
    with pytest.raises(SandboxError, match="it was closed"):
        dispatcher.submit(script("late"))


def test_tasks_share_a_backend():
    async def ask(sandbox, caller):
        return [reply.id async for reply in sandbox.run(scripts(f"{caller}-", 20))]

    async def main():
        async with AsyncSandbox(open_one) as sandbox:
            one = await sandbox.run_one(script("one", "print(7)"))
            many = await asyncio.gather(*[ask(sandbox, caller) for caller in range(4)])
            singles = await asyncio.gather(*[sandbox.run_one(one) for one in scripts("s", 50)])
        return one.stdout, many, [reply.id for reply in singles]

    one, many, singles = asyncio.run(main())
    assert one == b"7\n"
    assert many == [[f"{c}-{n}" for n in range(20)] for c in range(4)]
    assert singles == [f"s{n}" for n in range(50)]


def test_a_cancelled_task_forgets_its_program():
    async def main():
        async with AsyncSandbox(open_one) as sandbox:
            task = asyncio.create_task(sandbox.run_one(script("hung", HANG)))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return (await sandbox.run_one(script("next"))).status

    assert asyncio.run(main()) == "ok"


def test_a_backend_without_a_queue_is_refused():
    class Plain:
        level = 2

        def close(self):
            self.is_closed = True

    plain = Plain()
    with pytest.raises(SandboxError, match="Plain has no queue"):
        Dispatcher(lambda: plain)
    assert plain.is_closed


def test_who_leaves_its_replies_lying_waits_and_holds_up_nobody():
    queue = FairQueue(100, 1 << 20, lambda: None)
    greedy, other = (Call(queue, lambda: None) for _ in range(2))
    assert greedy.offer(scripts("greedy", 3))
    large = Reply("greedy", "ok", stdout=b"x" * MAX_UNTAKEN_BYTES)
    queue.settle([(queue.next_place(), large)])
    assert queue.next_place() is None
    assert queue.may_sleep(True)
    assert other.offer(scripts("other", 1))
    assert queue.next_place().call is other
    assert greedy.take() == [large]
    assert not queue.may_sleep(True)
    assert queue.next_place().call is greedy
    queue.settle([(Place(greedy, 1, script("b")), large)])
    assert queue.next_place() is None
    greedy.cancel()
    assert queue.n_open == 1  # what runs of the other
