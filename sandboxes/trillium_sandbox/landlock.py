"""Landlock: the files a program may open, and no signals or abstract sockets beyond itself.

A second wall behind the mount namespace at level 2, and the only one around files at level 1.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct

from trillium_sandbox import linux

_CREATE_RULESET = 444
_ADD_RULE = 445
_RESTRICT_SELF = 446
_VERSION = 1
_PATH_BENEATH = 1

_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_REMOVE = 1 << 4 | 1 << 5
_MAKE = 1 << 7 | 1 << 8 | 1 << 12  # directories, regular files, symbolic links
_REFER = 1 << 13
_TRUNCATE = 1 << 14
_HANDLED_BY_VERSION = ((1, (1 << 13) - 1), (2, _REFER), (3, _TRUNCATE), (5, 1 << 15))
_READ = _READ_FILE | _READ_DIR
_READ_WRITE = _READ | _WRITE_FILE | _REMOVE | _MAKE | _REFER | _TRUNCATE
_FILE_RIGHTS = _READ_FILE | _WRITE_FILE | _TRUNCATE


def version() -> int:
    """Return the kernel's Landlock version, 0 where there is none."""
    try:
        return linux.call("landlock_create_ruleset", _CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def ruleset(readable: tuple[str, ...], writable: tuple[str, ...]) -> int:
    """Return a descriptor of rules: nothing may be opened but what lies under these paths.

    Executing is never allowed, nor making devices, pipes or sockets. Missing paths are left out.
    """
    kernel = version()
    handled = 0
    for since, rights in _HANDLED_BY_VERSION:
        handled |= rights if kernel >= since else 0
    fields = [handled]
    if kernel >= 4:
        fields.append(0b11)  # TCP bind and connect
    if kernel >= 6:
        fields.append(0b11)  # abstract unix sockets, signals
    attributes = struct.pack(f"<{len(fields)}Q", *fields)
    descriptor = _with_pointer(attributes, "landlock_create_ruleset", _CREATE_RULESET)
    for path in readable:
        _add(descriptor, path, _READ & handled)
    for path in writable:
        _add(descriptor, path, _READ_WRITE & handled)
    return descriptor


def restrict(descriptor: int) -> None:
    """Put this process under the rules of `descriptor`; it must have set no_new_privs."""
    linux.call_plainly("landlock_restrict_self", _RESTRICT_SELF, descriptor, 0)


def _with_pointer(attributes: bytes, name: str, number: int) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    pointer = ctypes.cast(buffer, ctypes.c_void_p)
    return linux.call(name, number, pointer, len(attributes), 0)


def _add(descriptor: int, path: str, rights: int) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(beneath).st_mode):
            rights &= _FILE_RIGHTS
        buffer = ctypes.create_string_buffer(struct.pack("<Qi", rights, beneath), 12)
        pointer = ctypes.cast(buffer, ctypes.c_void_p)
        linux.call("landlock_add_rule", _ADD_RULE, descriptor, _PATH_BENEATH, pointer, 0)
    finally:
        os.close(beneath)
