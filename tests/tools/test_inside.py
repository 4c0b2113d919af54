"""What a program in the sandbox is to its author: a prompt, with packages, tracebacks and images."""

from __future__ import annotations

import base64
import sys

import pytest

from tests.tools.sandboxes import run, said, skip_without_sandbox


@pytest.fixture(scope="module", autouse=True)
def _possible() -> None:
    skip_without_sandbox()


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("1 + 1", "2\n"),
        ("x = 3\nx", "3\n"),
        ("print('a')\nNone", "a\n"),
        ("x = 3", ""),
        ("", ""),
        ("'grüß €😀'", "'grüß €😀'\n"),
        ("def f(n):\n    return n * 2\n\nf(21)", "42\n"),
        ("__name__", "'__main__'\n"),
        ("import sys\nprint('one')\nprint('two', file=sys.stderr)\nprint('three')", "one\ntwo\nthree\n"),
        ("import numpy as np\nint(np.arange(5).sum())", "10\n"),
        (
            "from multiprocessing import Pool\ndef f(n): return -n\nwith Pool(2) as p: print(p.map(f, [1, 2]))",
            "[-1, -2]\n",
        ),
        ("import os\nos.getcwd(), os.listdir(), os.path.expanduser('~')", "('/sandbox', [], '/sandbox')\n"),
        ("import atexit as a, threading as t\na.register(print, 2)\nt.Timer(0.1, print, [1]).start()\n0", "0\n1\n2\n"),
        ("import subprocess\nsubprocess.run('echo $((6 * 7))', shell=True).returncode", "42\n0\n"),
    ],
)
def test_a_program_is_read_as_at_a_prompt(code: str, output: str) -> None:
    assert said(code) == output


def test_annotations_and_names_are_the_programs_own() -> None:
    assert said("class A:\n    x: int = 1\nA.__annotations__, sorted(n for n in dir() if n[0] != '_')") == (
        "({'x': <class 'int'>}, ['A'])\n"
    )


@pytest.mark.parametrize(
    ("code", "end", "status"),
    [
        ("def f():\n    return 1 / 0\nf()", "ZeroDivisionError: division by zero\n", 1),
        ("x = (", "SyntaxError: '(' was never closed\n", 1),
        ("input('name? ')", "EOFError: EOF when reading a line\n", 1),
        ("import sys\nsys.exit(3)", "", 3),
        ("import sys\nsys.exit('over')", "over\n", 1),
        ("exit(4)", "", 4),
        ("raise KeyboardInterrupt", "KeyboardInterrupt\n", 1),
        ("import os\nos.kill(os.getpid(), 11)", "", -11),
        ("def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded\n", 1),
        ("(" * 5000, "", 1),
        ("x = '\0'", "", 1),
    ],
)
def test_errors_are_told_as_python_tells_them(code: str, end: str, status: int) -> None:
    ran = run(code)
    assert ran.output.endswith(end), ran
    assert (ran.status, ran.over) == (status, "")
    assert "driver.py" not in ran.output


def test_a_traceback_has_the_programs_lines_only() -> None:
    lines = run("def f():\n    return 1 / 0\nf()").output.splitlines()
    assert lines[:5] == [
        "Traceback (most recent call last):",
        '  File "<code>", line 3, in <module>',
        "    f()",
        '  File "<code>", line 2, in f',
        "    return 1 / 0",
    ]


def test_images_come_back_in_the_order_they_were_written_in() -> None:
    ran = run(
        """
import os
png, jpg = b'\\x89PNG\\r\\n\\x1a\\n', b'\\xff\\xd8\\xff'
os.makedirs('plots/deep'), os.mkdir('.cache')
for number, (name, content) in enumerate([('b.png', png), ('plots/deep/a.JPG', jpg), ('.cache/no.png', png)]):
    open(name, 'wb').write(content)
    os.utime(name, ns=(number, number))
open('notes.txt', 'w').write('x')
"""
    )
    assert [(image.name, base64.b64decode(image.data)[:3]) for image in ran.images] == [
        ("b.png", b"\x89PN"),
        ("plots/deep/a.JPG", b"\xff\xd8\xff"),
    ]
    assert ran.left_out == []


def test_too_many_and_too_large_images_are_left_out_by_name() -> None:
    ran = run(
        """
import os
for number in range(6):
    open(f'{number}.png', 'wb').write(bytes((2 << 20) if number == 0 else 100))
    os.utime(f'{number}.png', ns=(number, number))
"""
    )
    assert [image.name for image in ran.images] == ["1.png", "2.png", "3.png", "4.png"]
    assert ran.left_out == ["0.png", "5.png"]


def test_what_is_no_plain_file_is_no_image() -> None:
    ran = run(
        """
import os, socket
os.symlink('/driver.py', 'link.png'), os.mkfifo('pipe.png'), os.mkdir('folder.png'), open('empty.png', 'w')
socket.socket(socket.AF_UNIX).bind('socket.png')
os.open('x' * 200 + '.jpg', os.O_CREAT)
folder = '/tmp'
for _ in range(60):
    os.mkdir('d' * 200); os.chdir('d' * 200)
open('too_deep.png', 'w').write('x')
"""
    )
    assert ran.status == 0, ran.output
    assert ran.images == []


def test_it_is_the_servers_python_without_the_servers_code() -> None:
    assert said("import sys\nsys.version_info[:2]") == f"{sys.version_info[:2]}\n"
    assert run("import llsflow.errors").output.endswith("No module named 'llsflow'\n")
