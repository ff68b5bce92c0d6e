"""The queue of the engine: who counts as waiting, without a server around it."""

import threading

import pytest
import torch
from trillium.generation import SamplingConfig
from trillium.serving.launch import LaunchSettings, open_engine
from trillium.serving.rows import RefusedError, Row
from trillium.serving.sources import Sources
from trillium.serving.text_stream import TextStream


def make_row(post):
    text = TextStream(lambda ids: "", ())
    sampling = SamplingConfig(max_new_tokens=1)
    return Row(None, (1, 2), sampling, torch.Generator(), text, post)


def test_rows_whose_clients_have_left_take_no_place_in_the_queue(shelf):
    settings = LaunchSettings(dtype="float32", max_rows=1, max_waiting=4)
    runs, may_end, answered = threading.Event(), threading.Event(), threading.Semaphore(0)

    def hold(piece):
        runs.set()
        may_end.wait()

    with open_engine(Sources(str(shelf / "base"), {}), settings) as (engine, _):
        try:
            engine.submit([make_row(hold)])
            runs.wait()  # the only place to run is taken until the end of the test
            patient, *leaving = [make_row(lambda piece: answered.release()) for _ in range(4)]
            engine.submit([patient, *leaving])
            with pytest.raises(RefusedError, match="the queue of 4 completions is full"):
                engine.submit([make_row(print)])
            for row in leaving:
                row.is_cancelled = True
            assert engine.n_waiting == 1
            late = [make_row(lambda piece: answered.release()) for _ in range(3)]
            engine.submit(late)
            assert engine.n_waiting == 4
            with pytest.raises(RefusedError, match="the queue of 4 completions is full"):
                engine.submit([make_row(print)])
            # Whoever hangs up again and again fills no memory either.
            for _ in range(20):
                late[-1].is_cancelled = True
                late.append(make_row(lambda piece: answered.release()))
                engine.submit(late[-1:])
            assert len(engine._waiting) == 4
        finally:
            may_end.set()
        assert all(answered.acquire(timeout=60) for _ in range(4))
        assert not any(row.is_finished for row in leaving)
