"""The snapshot in force and the watch over the catalogue, without a socket."""

import asyncio
import contextlib
import logging

import pytest
from trillium.errors import DataError
from trillium_rec.live_catalogue import lock_catalogue, publish
from trillium_rec.served_run import ServedRun
from trillium_rec.serving.app import Shelf, _watch
from trillium_rec.serving.metrics import Metrics


@pytest.fixture
def shelf(own_run):
    return Shelf(ServedRun.open(own_run), Metrics())


def hide(folder, row):
    """Publish a revision in which one more item is hidden."""
    live = ServedRun.open(folder).catalogue()
    with lock_catalogue(folder):
        publish(folder, live.with_state([live.ids.items[row]], "hidden"))


def hidden(shelf):
    return (shelf.snapshot.live.ids.states == 1).nonzero()[0].tolist()


def look(shelf):
    asyncio.run(shelf.reload(is_forced=False))


def test_another_revision_of_the_same_number_is_taken_up(shelf, own_run):
    hide(own_run, 1)
    look(shelf)
    assert hidden(shelf) == [1]
    before = shelf.snapshot
    look(shelf)
    assert shelf.snapshot is before, "the same revision is not read again"
    (own_run / "catalogue").rename(own_run / "old")
    hide(own_run, 2)
    look(shelf)
    assert (hidden(shelf), shelf.snapshot.live.ids.revision) == ([2], 1)
    (own_run / "catalogue").rename(own_run / "older")
    look(shelf)
    assert (hidden(shelf), shelf.snapshot.live.ids.revision) == ([], 0)


def test_a_revision_that_is_cut_off_is_refused_until_it_is_whole(shelf, own_run):
    hide(own_run, 1)
    path = own_run / "catalogue" / "revision-1" / "ids.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(DataError, match="revision-1: holds no semantic ids"):
        look(shelf)
    assert "holds no semantic ids" in shelf.reload_error
    assert hidden(shelf) == []
    path.write_bytes(whole)
    look(shelf)
    assert (hidden(shelf), shelf.reload_error) == ([1], None)


def test_the_watch_outlives_an_error_that_nobody_expected(shelf, own_run, caplog):
    weights = own_run / "model" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    hide(own_run, 1)

    async def watch_until(is_reached):
        async with asyncio.timeout(60):
            watcher = asyncio.create_task(_watch(shelf, 0.01))
            while not is_reached():
                assert not watcher.done()
                await asyncio.wait([watcher], timeout=0.01)
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher

    with caplog.at_level(logging.WARNING):
        asyncio.run(watch_until(lambda: "SafetensorError" in caplog.text))
    assert "SafetensorError" in shelf.reload_error
    assert hidden(shelf) == []
    weights.write_bytes(whole)
    asyncio.run(watch_until(lambda: hidden(shelf) == [1]))
    assert shelf.reload_error is None
