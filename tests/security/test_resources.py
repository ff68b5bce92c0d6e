"""Programs that ask for more than they may have: memory, time, threads, files, disk, output."""

import pytest
from trillium_sandbox import Limits

pytestmark = pytest.mark.security

BOMBS = {
    "memory in one piece": ("x = bytearray(1 << 30)", {"memory"}),
    "memory in many pieces": ("x = []\nwhile True: x.append(bytearray(1 << 20))", {"memory"}),
    "memory in a big integer": ("x = 1 << (1 << 33)", {"memory", "timeout"}),
    "memory in a string": ("x = 'a' * (1 << 34)", {"memory"}),
    "anonymous memory": ("import mmap\nm = mmap.mmap(-1, 1 << 30)", {"error", "memory"}),
    "a fork": ("import os\nos.fork()", {"error"}),
    "a fork bomb": (
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: raise SystemExit(3)",
        {"error"},
    ),
    "a process by multiprocessing": (
        "import multiprocessing as m\nm.set_start_method('fork')\nm.Process(target=print).start()",
        {"error"},
    ),
    "a program": ("import subprocess\nsubprocess.run(['/bin/true'])", {"error"}),
    "another program in its place": ("import os\nos.execv('/usr/bin/env', ['env'])", {"error"}),
    "threads without end": (
        "import threading, time\nwhile True:\n"
        "    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
        {"error", "memory"},
    ),
    "files without end": (
        "import os\nf = []\nwhile True: f.append(os.open('/dev/null', 0))",
        {"error"},
    ),
    "the processor": ("while True: pass", {"timeout"}),
    "the processor in C": ("sum(range(10**12))", {"timeout"}),
    "the processor, deaf to signals": (
        "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nwhile True: pass",
        {"timeout"},
    ),
    "the processor in many threads": (
        "import threading\ndef spin():\n    while True: pass\n"
        "for _ in range(8): threading.Thread(target=spin, daemon=True).start()\nspin()",
        {"timeout"},
    ),
    "time asleep": ("import time\ntime.sleep(60)", {"timeout"}),
    "recursion": ("def f(): f()\nf()", {"error"}),
    "recursion without a limit": (
        "import sys\nsys.setrecursionlimit(1 << 30)\ndef f(): f()\nf()",
        {"error", "killed", "memory", "timeout"},
    ),
    "recursion in C": (
        "import sys\nsys.setrecursionlimit(1 << 30)\nx = []\n"
        "for _ in range(10**6): x = [x]\nrepr(x)",
        {"error", "killed", "memory", "timeout"},
    ),
    "a stubborn regular expression": (
        "import re\nre.match('(a+)+$', 'a' * 40 + 'b')",
        {"timeout"},
    ),
    "the compiler, by nesting": ("(" * 20000 + ")" * 20000, {"error", "memory", "killed"}),
    "the compiler, by folding": (
        "x = ((2**9999)**99, 'a'*4096*4096, (1,)*4096*9999*9999)",
        {"ok", "error", "memory", "timeout"},
    ),
    "the compiler, by length": ("x = 1\n" * 200000, {"ok", "timeout", "memory"}),
    "a crash": ("import ctypes\nctypes.string_at(0)", {"killed"}),
    "an abort": ("import os\nos.abort()", {"killed"}),
    "raised limits": (
        "import resource as r\nfor k in (r.RLIMIT_AS, r.RLIMIT_CPU, r.RLIMIT_NPROC):\n"
        "    try:\n        r.setrlimit(k, (-1, -1))\n        print('raised', k)\n"
        "    except (ValueError, OSError): pass\nx = bytearray(1 << 30)",
        {"memory"},
    ),
}


@pytest.mark.parametrize(("source", "statuses"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_hurts_only_itself(attack, source, statuses):
    reply = attack(source)
    assert reply.status in statuses, reply
    assert b"raised" not in reply.stdout
    assert reply.wall_s < 5


DISK = {
    "fills the disk": ("f = open('x', 'wb')\nwhile True: f.write(bytes(1 << 16))", {"error"}),
    "fills it with many files": (
        "i = 0\nwhile True:\n    open(str(i), 'wb').write(bytes(1 << 16)); i += 1",
        {"error", "timeout"},
    ),
    "makes files without end": (
        "i = 0\nwhile True:\n    open(str(i), 'wb').close(); i += 1",
        {"error", "timeout"},
    ),
    "makes folders without end": (
        "import os\nwhile True:\n    os.mkdir('d'); os.chdir('d')",
        {"error", "timeout"},
    ),
    "leaves an unreadable tree": (
        "import os\nos.makedirs('a/b/c')\nopen('a/b/c/d', 'w').close()\n"
        "for p in ('a/b/c', 'a/b', 'a'): os.chmod(p, 0)",
        {"ok"},
    ),
    "allocates without writing": ("import os\nos.posix_fallocate(1, 0, 1 << 40)", {"error"}),
    "makes a sparse file": ("open('x', 'wb').truncate(1 << 40)", {"error"}),
    "leaves links": (
        "import os\nos.symlink('/etc/passwd', 'p')\nos.symlink('/', 'r')\nos.symlink('l', 'l')",
        {"ok"},
    ),
    "plants modules for its successors": (
        "for n in ('json', 'sitecustomize', 'usercustomize', 'os'):\n"
        "    open(n + '.py', 'w').write('raise SystemExit')",
        {"ok"},
    ),
    "leaves a tree that nobody may enter": (
        "import os\nos.makedirs('a/' * 50)\n"
        "for n in range(50, 0, -1): os.chmod('a/' * n, 0)\nos.mkdir('b', 0)",
        {"ok"},
    ),
    "leaves names like those of a sweeper": (
        "import os\nfor n in range(9):\n    os.makedirs(f'.{n}/{n}/{n}')\n"
        "    open(f'{n}', 'w').close()\n    os.makedirs(f'd/.{n}')",
        {"ok"},
    ),
    "leaves sticky folders": (
        "import os\nos.makedirs('a/b')\nopen('a/b/c', 'w').close()\n"
        "for p in ('a/b', 'a'): os.chmod(p, 0o1555)",
        {"ok"},
    ),
    "leaves names that are no text": (
        "import os\nos.mkdir(b'\\xff\\n')\nopen(b'\\xff\\n/' + b'\\xfe' * 200, 'w').close()",
        {"ok"},
    ),
    "moves its own folder away": (
        "import os\nos.rename(os.getcwd(), '/gone')",
        {"error"},
    ),
}


@pytest.mark.parametrize(("source", "statuses"), DISK.values(), ids=DISK)
def test_a_disk_filler_leaves_nothing_behind(attack, source, statuses):
    assert attack(source).status in statuses


def test_a_tree_that_candidate_and_test_build_into_one_another_is_removed(attack):
    build = "import os\nfor _ in range(9):\n    os.mkdir('x', 0o777)\n    os.chdir('x')\n"
    source = "def f():\n" + "".join(f"    {line}\n" for line in build.splitlines())
    test = f"{build}f()\n" + build + "for _ in range(18):\n    os.chdir('..')\n    os.chmod('x', 0)"
    reply = attack(source, tests=(test, "assert f() is None"), entry_point="f")
    assert not reply.sandbox_failure


def test_the_disk_limit_of_one_request_is_not_the_next_ones(attack):
    source = "open('x', 'wb').write(bytes(6 << 20))"
    small = Limits(disk_bytes=2 << 20)
    large = Limits(disk_bytes=8 << 20)
    assert attack(source, limits=small).status == "error"
    assert attack(source, limits=large).status == "ok"
    assert attack(source, limits=small).status == "error"


FLOODS = {
    "on standard output": "while True: print('x' * 1000)",
    "on standard error": "import sys\nwhile True: print('x' * 1000, file=sys.stderr)",
    "in bytes that are no text": "import os\nwhile True: os.write(1, bytes(range(256)) * 64)",
    "without line ends": "import os\nwhile True: os.write(1, b'x' * 9999)",
    "ignoring refusals": (
        "import os\nwhile True:\n    try: os.write(1, b'x' * 4096)\n    except OSError: pass"
    ),
}


@pytest.mark.parametrize("source", FLOODS.values(), ids=FLOODS)
def test_a_flood_is_cut_and_named(attack, source):
    reply = attack(source)
    assert reply.status in {"output_limit", "timeout"}
    assert reply.truncated
    assert len(reply.stdout) <= 65536
    assert len(reply.stderr) <= 65536


def test_moving_the_output_offset_returns_no_more_than_the_limit(attack):
    reply = attack("import os\nos.lseek(1, 1 << 50, 0)\nos.lseek(2, 1 << 62, 0)")
    assert len(reply.stdout) <= 65536
    assert len(reply.stderr) <= 65536


def test_a_mapped_output_file_dies_with_its_program(attack):
    source = "import mmap\nm = mmap.mmap(1, 4096)\nm[:5] = b'hello'\nimport os\nos.lseek(1, 5, 0)"
    assert attack(source).stdout == b"hello"


def test_standard_input_is_empty_unless_given(attack):
    assert attack("import sys\nprint(repr(sys.stdin.read()))").stdout == b"''\n"
    assert attack("print(input())", stdin=b"given\n").stdout == b"given\n"
