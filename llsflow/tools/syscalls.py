"""What a sandboxed program may ask of the kernel: a seccomp filter against memory that no limit counts, and old holes.

Namespaces and limits do the rest. Source: seccomp(2), linux/filter.h, linux/audit.h and the kernel's syscall tables.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass

DENIED = {
    # memory that stands in no process's account
    **{"memfd_create": (319, 279), "memfd_secret": (447, 447)},
    **{"shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180)},
    # large parts of the kernel that Python code needs nothing of
    **{"io_uring_setup": (425, 425), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282)},
    **{"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219)},
    # other processes, among them the one that watches
    **{"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271)},
    # other views of the machine
    **{"unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41)},
    **{"open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "mount_setattr": (442, 442)},
}
"""Calls that get EPERM: numbers on x86_64 and aarch64."""

SOCKET = (41, 198)
FAMILIES = (1, 2, 10)
"""Unix, and IPv4 and IPv6, which end in the sandbox's own network; vsock, for one, would reach out of it."""


@dataclass(frozen=True)
class _Machine:
    audit: int
    """AUDIT_ARCH_* of linux/audit.h."""
    column: int


MACHINES = {"x86_64": _Machine(0xC000003E, 0), "aarch64": _Machine(0xC00000B7, 1)}

LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER_AT, MACHINE_AT, ARGUMENT_AT = 0, 4, 16
"""Places in struct seccomp_data; the first argument's low half."""
ALLOW, KILL, FAIL = 0x7FFF0000, 0x80000000, 0x00050000
X32 = 0x40000000
"""Numbers from here on are a second door to the same calls of x86_64."""


def seccomp_filter(machine: str | None = None) -> bytes | None:
    """Return the program as `bwrap --seccomp` reads it; None: there is none for this kind of machine."""
    found = MACHINES.get(machine or platform.machine())
    if found is None:
        return None
    # (code, how many to skip if true, if false, operand)
    lines = [(LOAD, 0, 0, MACHINE_AT), (EQUAL, 1, 0, found.audit), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER_AT)]
    lines += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, KILL)]
    for numbers in DENIED.values():
        lines += [(EQUAL, 0, 1, numbers[found.column]), (RETURN, 0, 0, FAIL | errno.EPERM)]
    lines += [(EQUAL, 1, 0, SOCKET[found.column]), (RETURN, 0, 0, ALLOW), (LOAD, 0, 0, ARGUMENT_AT)]
    for family in FAMILIES:
        lines += [(EQUAL, 0, 1, family), (RETURN, 0, 0, ALLOW)]
    lines += [(RETURN, 0, 0, FAIL | errno.EAFNOSUPPORT)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
