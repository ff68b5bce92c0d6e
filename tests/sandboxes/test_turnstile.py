import os

from trillium_sandbox.turnstile import Turnstile
from trillium_sandbox.wire import ALONE, BEGIN

RECORD = BEGIN.pack(b"P", 5.0, 5.0, 7, 1 << 20, 65536, 0, 0, False)


def test_one_announcement_is_heard_whole_and_two_are_not_taken_for_one():
    turnstile = Turnstile()
    assert turnstile.hear() == b""
    os.write(turnstile.announce, RECORD)
    assert turnstile.hear() == RECORD
    os.write(turnstile.announce, RECORD * 2)
    assert len(turnstile.hear()) != BEGIN.size


def test_a_child_that_asks_to_be_alone_waits_until_it_is_let_in():
    turnstile = Turnstile()
    child = os.fork()
    if child == 0:
        turnstile.ask_to_be_alone()
        os.write(turnstile.announce, RECORD)
        os._exit(0)
    os.set_blocking(turnstile.announced, True)
    assert turnstile.hear() == ALONE
    os.set_blocking(turnstile.announced, False)
    assert turnstile.hear() == b""
    turnstile.open()
    assert os.waitpid(child, 0)[1] == 0
    assert turnstile.hear() == RECORD


def test_a_child_that_nobody_lets_in_ends():
    turnstile = Turnstile()
    child = os.fork()
    if child == 0:
        turnstile.ask_to_be_alone()
        os._exit(0)
    os.close(turnstile._open)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 70
