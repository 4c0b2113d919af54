"""The filter on calls of the kernel, read as the kernel reads it."""

from __future__ import annotations

import errno
import struct

import pytest

from llsflow.tools.syscalls import seccomp_filter

ALLOWED, KILLED = 0x7FFF0000, 0x80000000
X86, ARM = 0xC000003E, 0xC00000B7


def answer(machine: str, audit: int, number: int, argument: int = 0) -> int:
    """Return what the filter says to a call. Source: linux/filter.h, for the four kinds of line that it has."""
    program = seccomp_filter(machine)
    assert program is not None
    lines = list(struct.iter_unpack("=HBBI", program))
    data, value, place = {0: number, 4: audit, 16: argument}, 0, 0
    while True:
        code, if_true, if_false, operand = lines[place]
        place += 1
        if code == 0x06:
            return int(operand)
        if code == 0x20:
            value = data[operand]
        else:
            holds = value == operand if code == 0x15 else value >= operand
            place += if_true if holds else if_false


@pytest.mark.parametrize(
    ("machine", "audit", "usual", "strange", "sockets"),
    [
        ("x86_64", X86, (0, 1, 56, 231, 257, 435), (319, 29, 101, 425, 321, 272, 165), 41),
        ("aarch64", ARM, (56, 63, 64, 94, 220, 435), (279, 194, 117, 425, 280, 97, 40), 198),
    ],
)
def test_usual_calls_pass_and_strange_ones_fail(
    machine: str, audit: int, usual: tuple[int, ...], strange: tuple[int, ...], sockets: int
) -> None:
    assert {answer(machine, audit, number) for number in usual} == {ALLOWED}
    assert {answer(machine, audit, number) for number in strange} == {0x00050000 | errno.EPERM}
    assert {answer(machine, audit, sockets, family) for family in (1, 2, 10)} == {ALLOWED}
    assert {answer(machine, audit, sockets, family) for family in (0, 16, 17, 38, 40)} == {
        0x00050000 | errno.EAFNOSUPPORT
    }


def test_other_doors_to_the_same_calls_are_shut() -> None:
    assert answer("x86_64", 0x40000003, 1) == KILLED
    assert answer("x86_64", X86, 0x40000001) == KILLED
    assert answer("aarch64", X86, 1) == KILLED


def test_other_machines_have_none() -> None:
    assert seccomp_filter("riscv64") is None
