import asyncio
import threading

import pytest
from trillium.errors import DataError
from trillium_rec.serving.asks import Answer, Ask
from trillium_rec.serving.batching import Batcher, FullError


def answer_for(ask):
    return Answer((ask.user,), (ask.user,), (0.0,), 0, "v", 0)


def make(answer, sizes, **bounds):
    bounds = {"max_batch": 3, "wait_s": 0.0, "max_waiting": 100} | bounds
    return Batcher(answer, count=sizes.append, **bounds)


def test_everybody_gets_the_answer_to_their_own_question_in_bounded_batches():
    sizes = []

    async def run():
        batcher = make(lambda asks: [answer_for(ask) for ask in asks], sizes)
        asked = [batcher.ask(Ask(str(n), (), 1)) for n in range(8)]
        found = await asyncio.gather(*asked)
        batcher.close()
        return [answer.items[0] for answer in found]

    assert asyncio.run(run()) == [str(n) for n in range(8)]
    assert sizes == [3, 3, 2]


def test_one_bad_question_does_not_spoil_the_batch():
    def answer(asks):
        return [DataError("who?") if ask.user == "1" else answer_for(ask) for ask in asks]

    async def run():
        batcher = make(answer, [])
        asked = [batcher.ask(Ask(str(n), (), 1)) for n in range(3)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        batcher.close()
        return found

    first, second, third = asyncio.run(run())
    assert (first.items, third.items) == (("0",), ("2",))
    assert isinstance(second, DataError)


def test_a_pass_that_fails_is_told_to_its_questions_and_the_next_one_works():
    fails = [True]

    def answer(asks):
        if fails.pop():
            fails.append(False)
            raise MemoryError
        fails.append(False)
        return [answer_for(ask) for ask in asks]

    async def run():
        batcher = make(answer, [])
        with pytest.raises(MemoryError):
            await batcher.ask(Ask("a", (), 1))
        found = await batcher.ask(Ask("b", (), 1))
        batcher.close()
        return found.items

    assert asyncio.run(run()) == ("b",)


def test_too_many_waiting_questions_are_refused_and_those_who_left_are_not_answered():
    has_begun, release, asked_for = threading.Event(), threading.Event(), []

    def answer(asks):
        has_begun.set()
        release.wait(30)
        asked_for.extend(ask.user for ask in asks)
        return [answer_for(ask) for ask in asks]

    async def run():
        batcher = make(answer, [], max_batch=1, max_waiting=2)
        first = asyncio.create_task(batcher.ask(Ask("first", (), 1)))
        while not has_begun.is_set():
            await asyncio.sleep(0)
        left = asyncio.create_task(batcher.ask(Ask("left", (), 1)))
        stays = asyncio.create_task(batcher.ask(Ask("stays", (), 1)))
        await asyncio.sleep(0)
        with pytest.raises(FullError, match="2 questions wait already; try again later"):
            await batcher.ask(Ask("refused", (), 1))
        left.cancel()
        await asyncio.sleep(0)
        release.set()
        await first
        await stays
        batcher.close()

    asyncio.run(run())
    assert asked_for == ["first", "stays"]
