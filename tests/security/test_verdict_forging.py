"""Wrong solutions that try to be judged right, whatever they do to their process.

None may pass; those whose answers say yes to every question pass as in plain execution, and their
verdict says that it is their own word.
"""

import pytest
from trillium_sandbox import Request, open_backend

pytestmark = pytest.mark.security

TESTS = ("assert f(2) == 4", "assert f(3) == 9", "assert f([1, 2]) == [1, 4]")

FORGERIES = {
    "exits with zero when loaded": "import sys; sys.exit(0)",
    "exits hard with zero when loaded": "import os; os._exit(0)",
    "exits with zero when called": "import sys\ndef f(x): sys.exit(0)",
    "exits hard when called": "import os\ndef f(x): os._exit(0)",
    "raises SystemExit": "def f(x): raise SystemExit(0)",
    "raises KeyboardInterrupt": "def f(x): raise KeyboardInterrupt",
    "raises GeneratorExit": "def f(x): raise GeneratorExit",
    "raises StopIteration": "def f(x): raise StopIteration",
    "exits in atexit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 0",
    "hooks uncaught exceptions": (
        "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\ndef f(x): raise ValueError"
    ),
    "exits in a thread": (
        "import os, threading\nthreading.Timer(0.01, os._exit, (0,)).start()\n"
        "def f(x):\n    while True: pass"
    ),
    "kills itself": "import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGKILL)",
    "prints success": (
        "print('passed', 'PASS', 'all tests passed', flush=True)\nimport os\n"
        "os.write(1, b'OK\\n')\ndef f(x): return 0"
    ),
    "replaces builtins": (
        "import builtins\nbuiltins.AssertionError = None\nbuiltins.isinstance = lambda *a: True\n"
        "def f(x): return 0"
    ),
    "walks the frames": (
        "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
        "        for k in list(frame.f_locals):\n            frame.f_locals[k] = b'P'\n"
        "        frame = frame.f_back\n    return 0"
    ),
    "steals constants from the garbage collector": (
        "import gc\nneedle = ' '.join(['assert', 'f(2)', '==', '4'])\ndef f(x):\n"
        "    for o in gc.get_objects():\n"
        "        if type(o) is tuple and needle in str(o): return 4\n"
        "    return 0"
    ),
    "patches the value of small integers": (
        "import ctypes\ndef f(x):\n    for n in (4, 9):\n"
        "        ctypes.memmove(id(n) + 24, id(0) + 24, 4)\n    return 0"
    ),
    "patches int comparison": (
        "import ctypes, struct\ndef f(x):\n    return 0\n"
        "slot = id(int) + 200\nother = id(object) + 200\n"
        "ctypes.memmove(slot, other, 8)"
    ),
    "writes pass records to every descriptor": (
        "import os, struct\n"
        "def f(x):\n    for fd in range(256):\n        if fd == 3: continue\n        try:\n"
        "            os.write(fd, struct.pack('<cdd', b'P', 0.0, 0.0) * 3)\n"
        "        except OSError: pass\n    return 0"
    ),
    "answers out of turn": (
        "import os\ndef f(x):\n"
        "    answer = b't\\x03\\0\\0\\0s\\x02\\0\\0\\0oki\\x05' + bytes(7) + b'N'\n"
        "    os.write(3, len(answer).to_bytes(4, 'little') + answer)\n    return 0"
    ),
    "sends garbage to the judge": (
        "import os\ndef f(x):\n    os.write(3, os.urandom(100000))\n    return 0"
    ),
    "announces a huge message": (
        "import os\ndef f(x):\n    os.write(3, b'\\xff\\xff\\xff\\xff')\n    return 0"
    ),
    "sends a value nested too deep": (
        "def f(x):\n    v = []\n    for _ in range(100000): v = [v]\n    return v"
    ),
    "hangs up and waits": "import os, time\ndef f(x):\n    os.close(3)\n    time.sleep(9)",
    "registers a fake module for the tests": (
        "import sys, types\nm = types.ModuleType('math')\nm.sqrt = lambda x: 2\n"
        "sys.modules['math'] = m\ndef f(x): return 0"
    ),
    "reads its caller's source": (
        "import inspect, sys\ndef f(x):\n    frame = sys._getframe(1)\n"
        "    text = str(frame.f_code.co_consts) + str(frame.f_globals)\n"
        "    return 4 if '==' + ' 4' in text.replace('co_consts', '') else 0"
    ),
    "returns an object with a lying repr": (
        "class R:\n    def __repr__(self): return '4'\n    def __int__(self): return 4\n"
        "    def __index__(self): return 4\ndef f(x): return R()"
    ),
    "returns itself": "def f(x): return f",
    "returns a generator of right answers": "def f(x):\n    yield 4\n    yield 9",
    "never answers": "def f(x):\n    import time\n    time.sleep(60)",
    "defines nothing": "pass",
    "does not parse": "def f(x) return 4",
    "holds null bytes": "def f(x):\n    return 4\0",
}


YES_SAYERS = {
    "equals everything": (
        "class E:\n    def __eq__(self, o): return True\n    def __ne__(self, o): return False\n"
        "    __hash__ = None\ndef f(x): return E()"
    ),
    "an int that equals everything": (
        "class I(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\n"
        "def f(x): return I(0)"
    ),
    "a list that equals everything": (
        "class L(list):\n    def __eq__(self, o): return True\ndef f(x): return L()"
    ),
    "a float that equals everything": (
        "class F(float):\n    def __eq__(self, o): return True\ndef f(x): return F(0)"
    ),
    "a list of things that equal everything": (
        "class E:\n    def __eq__(self, o): return True\ndef f(x): return [E(), E()]"
    ),
    "a metaclass that equals everything": (
        "class M(type):\n    def __eq__(c, o): return True\n    __hash__ = type.__hash__\n"
        "class C(metaclass=M): pass\ndef f(x): return C"
    ),
    "says yes to all": (
        "class Y:\n    pass\ndef yes(self, *a): return True\n"
        "for name in 'eq ne lt le gt ge contains bool instancecheck exit'.split():\n"
        "    setattr(Y, f'__{name}__', yes)\ndef f(x): return Y()"
    ),
    "a class made by the key function": (
        "def f(x, key=type):\n"
        "    return key('X', (), {'__module__': 'tests', '__eq__': lambda *a: True})()"
    ),
}


@pytest.mark.parametrize("source", FORGERIES.values(), ids=FORGERIES)
def test_a_wrong_solution_does_not_pass(attack, source):
    reply = attack(source, tests=TESTS, entry_point="f")
    assert reply.status != "pass"
    assert len(reply.tests) == 3
    assert "pass" not in reply.tests
    assert not reply.sandbox_failure


@pytest.mark.parametrize("source", YES_SAYERS.values(), ids=YES_SAYERS)
def test_an_answer_that_says_yes_itself_is_never_called_split(attack, source):
    assert attack(source, tests=TESTS, entry_point="f").integrity == "token"


def test_a_function_that_a_candidate_lends_to_the_test_is_never_called_split(attack):
    source = (
        "import math\nclass math:\n    isclose = lambda *a, **k: True\n"
        "abs = round = len = sorted = lambda *a: 4\ndef f(x): return 0"
    )
    for test in ("assert math.isclose(f(2), 4)", "assert abs(f(2)) == 4", "assert len(f(2)) == 4"):
        assert attack(source, tests=(test,), entry_point="f").integrity == "token"
    reply = attack(source, tests=("assert isclose(f(2), 4)",), entry_point="f")
    assert (reply.tests, reply.integrity) == (("fail",), "split")


@pytest.mark.parametrize(
    ("imports", "test"),
    [
        ("from math import isinf as isclose", "assert not isclose(f(2), 4)"),
        ("from operator import ne as pow", "assert pow(f(2), 4)"),
        ("import cmath as math", "assert math.isclose(f(2), 0j)"),
    ],
)
def test_a_function_of_the_library_under_another_name_is_the_candidates(attack, imports, test):
    reply = attack(f"{imports}\ndef f(x): return 0", tests=(test,), entry_point="f")
    assert reply.integrity == "token"


@pytest.mark.parametrize(
    "given",
    [
        "key = type",
        "class key(type): pass",
        "from functools import partial\nkey = partial(type, 'X')",
        "key = type[int]",
        "import enum\nclass key(enum.Enum): pass",
        "from dataclasses import make_dataclass as key",
        "key = getattr",
        "key = eval",
    ],
)
def test_what_a_test_hands_over_makes_no_class_and_runs_no_code_of_the_judge(attack, given):
    source = (
        "yes = {'__module__': 'tests', '__eq__': lambda *a: True}\ndef f(key):\n"
        "    for arguments in (('X', (), yes), ((), yes), ('X', yes), ('X', [], ()),\n"
        "        (f, '__globals__'), ('[].append.__self__.__class__',)):\n"
        "        try:\n            made = key(*arguments)\n"
        "            return made() if callable(made) else made\n"
        "        except Exception: pass\n    return 0"
    )
    reply = attack(source, tests=(f"{given}\nassert f(key) == 4",), entry_point="f")
    assert "pass" not in reply.tests or reply.integrity == "token"


def test_a_verdict_that_leans_on_other_names_of_the_candidate_says_so(attack):
    source = "def f(x): return 0\ndef close(a, b): return True"
    reply = attack(source, tests=("assert close(f(2), 4)",), entry_point="f")
    assert reply.integrity == "token"


def test_a_candidate_cannot_reach_through_a_function_of_the_test(attack):
    source = (
        "def f(g):\n    for name in ('__globals__', '__code__', '__closure__', '__self__'):\n"
        "        try:\n            getattr(g, name)\n            return 'reached'\n"
        "        except AttributeError: pass\n    return 'sealed'"
    )
    reply = attack(source, tests=("assert f(lambda: 1) == 'sealed'",), entry_point="f")
    assert reply.status == "pass"


def test_a_candidate_reaches_public_attributes_of_the_tests_objects_only(attack):
    source = (
        "from trillium_sandbox.remote import peer_of\ndef f(node):\n    found = [node.value]\n"
        "    for name in ('__class__', '_hidden', '__init__', '__dict__'):\n"
        "        try: peer_of(node).ask('get', node, name)\n"
        "        except AttributeError: found.append('refused')\n    return found"
    )
    test = (
        "class Node:\n    def __init__(self): self.value, self._hidden = 5, 'expected'\n"
        "assert f(Node()) == [5, 'refused', 'refused', 'refused', 'refused']"
    )
    assert attack(source, tests=(test,), entry_point="f").status == "pass"


HOSTILE_TESTS = {
    "exits hard": "import os\nos._exit(0)",
    "exits": "import sys\nsys.exit(0)",
    "never ends": "while True: pass",
    "swallows everything": "while True:\n    try: f(1)\n    except BaseException: pass",
    "opens a file": "open('PLANTED/secret.txt').read()",
    "opens a socket": "import socket\nsocket.socket()",
    "forks": "import os\nos.fork()",
    "eats memory": "x = bytearray(1 << 30)",
    "does not parse": "assert (",
    "closes every descriptor": "import os\nos.closerange(0, 100)\nassert f(1) == 1",
    "floods the record pipe": "import os\nfor _ in range(99999): os.write(4, b'P' * 4000)",
}


@pytest.mark.parametrize("test", HOSTILE_TESTS.values(), ids=HOSTILE_TESTS)
def test_a_hostile_test_harms_nobody_else(attack, test):
    reply = attack("def f(x): return x", tests=(test,), entry_point="f")
    assert not reply.sandbox_failure
    assert len(reply.tests) == 1


@pytest.mark.parametrize(
    "test",
    [
        "import os\nos.write(3, b'd')",
        "import os\nos.write(3, b'd' * 9)",
        "import os, time, threading\n"
        "threading.Thread(target=lambda: (time.sleep(0.02), os.write(3, b'dd'))).start()",
        "import os, struct\nos.write(4, struct.pack('<cd', b'P', 0.0) * 3)",
        "import sys\nsys._current_frames = dict\nimport threading\n"
        "threading.Thread(target=lambda: [0 for _ in iter(int, 1)], daemon=True).start()",
    ],
)
def test_a_hostile_test_cannot_spoil_requests_with_other_tests(arena, test):
    hostile = [Request(f"h{n}", "function", b"def f(): return 1", (test,), "f") for n in range(6)]
    honest = [
        Request(f"g{n}", "function", b"def f(): return 1", ("assert f() == 1",), "f")
        for n in range(6)
    ]
    mixed = [request for pair in zip(hostile, honest, strict=True) for request in pair]
    replies = {reply.id: reply for reply in arena.run([*hostile, *mixed])}
    assert not any(reply.sandbox_failure for reply in replies.values())
    assert all(replies[request.id].status == "pass" for request in honest)


def test_a_test_that_never_ends_leaves_the_others_their_verdicts(attack):
    tests = ("assert f(1) == 1", "while True: pass", "assert f(2) == 3", "assert f(3) == 3")
    reply = attack("def f(x): return x", tests=tests, entry_point="f")
    assert reply.tests == ("pass", "timeout", "fail", "pass")
    assert (reply.status, reply.limit_hit) == ("timeout", "wall_s")


_WIRE = """
import os, struct
u = lambda n: struct.pack("<I", n)
word = lambda text: b"s" + u(len(text)) + text
def ask(body):
    view = memoryview(u(len(body)) + body)
    while view: view = view[os.write(3, view):]
    (size,) = struct.unpack("<I", os.read(3, 4))
    answer = b""
    while len(answer) < size: answer += os.read(3, size - len(answer))
    return answer
"""


@pytest.mark.parametrize(
    ("spoil", "big"),
    [
        # Queues in one another by references, freed when the next candidate's turn begins.
        (
            'chain = [b"k" + u(0) * 2]\n'
            'chain += [b"k" + u(1) + u(0) + b"@" + u(i) for i in range(1, 150000)]\n'
            'ask(b"t" + u(2) + word(b"iter") + b"k" + u(150000) + u(0) + b"".join(chain))',
            0,
        ),
        # The judge's memory is filled until it cannot compile the next test.
        (
            'def hold(n): ask(b"t" + u(2) + word(b"iter") + b"b" + u(n) + bytes(n))\n'
            "def has_room(n):\n"
            '    body = b"t" + u(4) + word(b"do") + word(b"__mod__") + word(b"%.0s")\n'
            '    body += b"b" + u(n) + bytes(n)  # as a text four times as long\n'
            '    return b"ok" in ask(body)\n'
            "while has_room(4_000_000): hold(3_000_000)\n"
            "while has_room(600_000): hold(400_000)",
            30_000,
        ),
    ],
    ids=["deep queues", "full memory"],
)
def test_what_a_candidate_leaves_in_the_judge_is_no_verdict_on_the_next(spoil, big):
    lines = "\n".join("    " + line for line in spoil.splitlines())
    hostile = f"{_WIRE}\ndef spoil():\n{lines}\n    globals()['spoil'] = int\n"
    square = "def f(x):\n    return x * x\n"
    data = ", ".join(str(1000 + n) for n in range(big))
    tests = ("assert f(2) == 4", f"data = [{data}]\nassert f(7) == 49", "assert f(3) == 9")
    sources = (hostile + "def f(x):\n    spoil()\n    return x * x\n", square, square)
    requests = [
        Request(str(n), "function", source.encode(), tests, "f") for n, source in enumerate(sources)
    ]
    with open_backend("embedded", n_workers=1) as backend:
        first, *others = backend.run(requests)
    assert not first.sandbox_failure
    assert [reply.tests for reply in others] == [("pass",) * 3] * 2
