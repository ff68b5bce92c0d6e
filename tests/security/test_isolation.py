"""Programs that look, reach or speak outside: files, network, processes, kernel, neighbours."""

import signal
from pathlib import Path

import pytest
from trillium_sandbox import Limits

pytestmark = pytest.mark.security

REACHES = {
    "the environment": "import os\nprint(dict(os.environ))",
    "a file beside the tests": "print(open('PLANTED/secret.txt').read())",
    "a file in /tmp": "print(open('/tmp/trillium-canary.txt').read())",
    "the password file": "print(open('/etc/passwd').read())",
    "the caller's environment": "print(open('/proc/self/environ').read())",
    "the first process": "print(open('/proc/1/environ').read())",
    "its own memory file": "open('/proc/self/mem', 'rb')",
    "the list of processes": "import os\nprint(os.listdir('/proc'))",
    "the root": "import os\nprint(os.listdir('/'))",
    "the home folders": "import os\nprint(os.listdir('/root'), os.listdir('/home'))",
    "a link out": (
        "import os\nos.symlink('PLANTED/secret.txt', 'link')\nprint(open('link').read())"
    ),
    "a hard link out": "import os\nos.link('/usr/bin/env', 'link')",
    "the way up": "import os\nprint(open('../../../../../../PLANTED/secret.txt').read())",
    "a change of root": "import os\nos.chroot('/usr')",
    "the interpreter's folder": "import os\nopen(os.__file__, 'a').write('x')",
    "a device": "import os\nos.mknod('disk', 0o60644, os.makedev(254, 0))",
    "the loopback": (
        "import socket\ns = socket.create_connection(('127.0.0.1', PORT), 1)\nprint(s.recv(99))"
    ),
    "the internet": "import socket\nsocket.create_connection(('1.1.1.1', 53), 1)",
    "a name server": "import socket\nprint(socket.getaddrinfo('example.org', 80))",
    "a datagram": (
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.sendto(b'x', ('1.1.1.1', 53))"
    ),
    "raw packets": "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "an abstract socket": (
        "import socket\ns = socket.socket(socket.AF_UNIX)\n"
        "s.connect('\\0trillium')\nprint(s.recv(99))"
    ),
    "the kernel's own sockets": (
        "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)"
    ),
    "a listening socket": "import socket\nsocket.socket().bind(('', 0))",
    "another process by kill": "import os\nos.kill(1, 9)",
    "every process by kill": "import os\nos.kill(-1, 9)",
    "its group by kill": "import os\nos.killpg(0, 9)",
    "its parent by kill": "import os\nos.kill(os.getppid() or 2, 9)",
    "another's limits": "import resource\nresource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0))",
    "the root user": "import os\nos.setuid(0)",
    "the sandbox's own user": "import os\nos.setresuid(0, -1, 0)",
    "a session of its own": "import os\nos.setsid()",
    "a file in /tmp that outlives it": "open('/tmp/left', 'w')",
    "shared memory by name": (
        "from multiprocessing.shared_memory import SharedMemory\nSharedMemory('left', True, 99)"
    ),
    "a message queue": "open('/dev/mqueue/left', 'w')",
    "a terminal": "import os\nos.openpty()",
    "the supervisor's output": "open('/proc/1/fd/1', 'wb').write(b'forged')",
    "its parent's memory": "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')",
    "its parent's name": "import os\nprint(open(f'/proc/{os.getppid()}/cmdline').read())",
    "the kernel's settings": "open('/proc/sys/kernel/core_pattern', 'w').write('|/box/x')",
    "the kernel's log": "print(open('/dev/kmsg').read(99))",
    "the control groups": "import os\nprint(os.listdir('/sys/fs/cgroup'))",
    "the engine's socket": "print(open('/var/run/docker.sock').read())",
    "the sandbox's own code": "import os\nprint(os.listdir('/opt/trillium'))",
    "a priority": "import os\nos.nice(-5)",
    "a processor of its choice": "import os\nos.sched_setaffinity(0, {0})",
    "descriptors of its elders": (
        "import os\nheld = []\nfor fd in range(3, 1024):\n    try:\n        os.fstat(fd)\n"
        "        held.append(fd)\n    except OSError: pass\nassert held, 'none'\nprint(held)"
    ),
}


def test_shared_memory_is_the_programs_own_work_folder(attack):
    """Limited and counted with it, and empty for the next program: see LOOK_AROUND."""
    source = (
        "import os\nn = open('/dev/shm/left', 'wb').write(bytes(1 << 20))\n"
        "print(n, os.listdir('.'), os.listdir('/dev/shm'))"
    )
    reply = attack(source)
    assert (reply.status, reply.stdout) == ("ok", b"1048576 ['left'] ['left']\n")
    assert not Path("/dev/shm/left").exists()
    reply = attack("for n in range(9): open(f'/dev/shm/{n}', 'wb').write(bytes(1 << 20))")
    assert reply.status == "error"
    assert b"No space left on device" in reply.stderr
    assert attack("import os\nos.unlink('/dev/shm')").status == "error"


@pytest.mark.parametrize("source", REACHES.values(), ids=REACHES)
def test_a_program_cannot_reach(attack, source):
    reply = attack(source)
    if "environ)" not in source:
        assert reply.status == "error", reply


# Number (x86_64), arguments, and what a refusal looks like.
CALLS = {
    "ptrace": (101, (16, 1, 0, 0)),
    "process_vm_readv": (310, (1, 0, 0, 0, 0, 0)),
    "unshare of users": (272, (0x10000000,)),
    "setns": (308, (0, 0)),
    "mount": (165, (0, 0, 0, 0, 0)),
    "umount2": (166, (0, 0)),
    "pivot_root": (155, (0, 0)),
    "bpf": (321, (0, 0, 0)),
    "perf_event_open": (298, (0, 0, -1, -1, 0)),
    "userfaultfd": (323, (1,)),
    "keyctl": (250, (0, 0)),
    "io_uring_setup": (425, (1, 0)),
    "memfd_create": (319, (0, 0)),
    "shmget": (29, (1, 4096, 0o1600)),
    "kexec_load": (246, (0, 0, 0, 0)),
    "init_module": (175, (0, 0, 0)),
    "personality": (135, (0x40000,)),
    "pidfd_open": (434, (1, 0)),
    "clone of users": (56, (0x10000000 | 17, 0, 0, 0, 0)),
    "clone of a process": (56, (17, 0, 0, 0, 0)),
    "clone3": (435, (0, 0)),
    "seccomp": (317, (1, 0, 0)),
    "chown": (92, (0, 0, 0)),
    "execveat": (322, (0, 0, 0, 0, 0)),
    "open_by_handle_at": (304, (0, 0, 0)),
    "a call of another table": (0x40000000 | 57, ()),
    "a call yet unknown": (9999, ()),
}


@pytest.mark.parametrize(("number", "arguments"), CALLS.values(), ids=CALLS)
def test_a_system_call_is_refused(attack, number, arguments):
    source = (
        "import ctypes, errno\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"result = libc.syscall(*map(ctypes.c_long, {(number, *arguments)}))\n"
        "print(result, errno.errorcode.get(ctypes.get_errno()))"
    )
    reply = attack(source)
    was_killed = reply.exit_code == -signal.SIGSYS  # a container's profile knows one table only
    assert was_killed or reply.stdout in (b"-1 EPERM\n", b"-1 ENOSYS\n"), reply


def test_the_32_bit_call_gate_kills(attack):
    source = (
        "import ctypes, mmap\n"
        # mov eax, 20 (getpid); int 0x80; ret
        "code = b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3'\n"
        "page = mmap.mmap(-1, 4096, prot=7)\npage.write(code)\n"
        "address = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "print('called', ctypes.CFUNCTYPE(ctypes.c_int)(address)())"
    )
    reply = attack(source)
    assert reply.status == "killed"
    assert b"called" not in reply.stdout


def test_nothing_of_an_earlier_program_is_in_memory(attack):
    source = (
        "import ctypes, gc\nfound = 0\nneedle = b'canary-' + b'7f3a9c1e55d0'\n"
        "for o in gc.get_objects():\n    if needle.decode() in repr(type(o)): found += 1\n"
        "probe = [bytearray(64) for _ in range(20000)]\n"
        "base = min(map(id, probe)) & ~0xFFF\n"
        "blob = ctypes.string_at(base, 1 << 20)\nprint('leak' if needle in blob.replace("
        "needle, b'', 1) and blob.count(needle) > 3 else 'clean')"
    )
    assert b"leak" not in attack(source).stdout


def test_a_program_is_nobody_and_alone(attack, arena):
    source = (
        "import os\nprint(os.getuid() != 0, os.geteuid() != 0, os.getgroups(), os.getppid(),\n"
        "      os.uname().nodename != 'x', os.getcwd(), sorted(os.environ))"
    )
    reply = attack(source)
    # Process 1 is the zygote in its own namespaces, and the supervisor in a container.
    parent = b"1" if arena.level == 2 else reply.stdout.split()[3]
    assert reply.stdout.startswith(b"True True [] " + parent + b" True /box ['HOME', 'LANG', ")


def test_signals_to_itself_work_and_are_named(attack):
    assert attack("import os\nos.kill(os.getpid(), 9)").status == "killed"
    assert attack("import os\nos.kill(os.getpid(), 15)").exit_code == -15


BENIGN = {
    "threads": (
        "import threading\nr = []\nT = threading.Thread\n"
        "t = [T(target=r.append, args=(i,)) for i in range(4)]\n"
        "[x.start() for x in t]; [x.join() for x in t]\nassert sorted(r) == [0, 1, 2, 3]"
    ),
    "a thread pool": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as e: assert sum(e.map(abs, range(9))) == 36"
    ),
    "temporary files": (
        "import tempfile\nwith tempfile.TemporaryDirectory() as d:\n"
        "    open(d + '/x', 'w').write('y')\nf = tempfile.NamedTemporaryFile()\nf.write(b'x')"
    ),
    "a fair amount of memory": "x = bytearray(100 << 20)\nx[::4096] = b'x' * len(x[::4096])",
    "source with a byte order mark": b"\xef\xbb\xbfprint('caf\xc3\xa9')",
    "source in another encoding": b"# -*- coding: latin-1 -*-\nassert '\xe9' == chr(233)",
    "asyncio": "import asyncio\nasync def f(): await asyncio.sleep(0.01)\nasyncio.run(f())",
    "a data base in memory": (
        "import sqlite3\nc = sqlite3.connect(':memory:')\nassert c.execute('select 1').fetchone()"
    ),
    "data classes": (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nassert P(1) == P(1)"
    ),
    "pickles of its own": (
        "import pickle\nclass P: pass\nassert type(pickle.loads(pickle.dumps(P()))) is P"
    ),
    "many modules": "import json, random, datetime, decimal, statistics, uuid, hashlib, secrets",
    "exit with zero": "exit(0)",
    "deep recursion within reason": (
        "import sys\nsys.setrecursionlimit(20000)\ndef f(n): return n and f(n - 1)\nf(15000)"
    ),
    "output of bytes": "import sys\nsys.stdout.buffer.write(bytes(range(256)))",
    "time zones": "import zoneinfo, time\nassert time.tzname[0] == 'UTC'",
}


@pytest.mark.parametrize("source", BENIGN.values(), ids=BENIGN)
def test_an_honest_program_may_use(attack, source):
    reply = attack(source, limits=Limits())
    assert reply.status == "ok", reply
