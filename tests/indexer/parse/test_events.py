"""Which rows point to the first row of their event, and that no other row does."""

import re
from collections.abc import Sequence
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.parse.events import NO_STATE
from tests.indexer.pieces import Piece, parsed


def cri(second: int, message: str, output: str = "stdout", tag: str = "F") -> bytes:
    return f"2026-01-02T15:04:{second:02}Z {output} {tag} {message}\n".encode()


def events(lines: Sequence[str], outputs: Sequence[str] = ()) -> list[int]:
    """Return for each line the number of the line that its event begins with."""
    names = outputs or ["stdout"] * len(lines)
    written = [
        cri(n, message, output)
        for n, (message, output) in enumerate(zip(lines, names, strict=True))
    ]
    starts = [100, *accumulate(map(len, written), initial=100)][1:]
    rows = parsed(Piece(b"".join(written), file_start=100))
    return [starts.index(at) for at in rows.event_offset.tolist()]


JAVA = """\
2026-01-02 15:04:05 ERROR broken
java.lang.IllegalStateException: outer
\tat org.example.A.run(A.java:1)
\tSuppressed: java.io.IOException: x
\t\tat org.example.B.run(B.java:2)
Caused by: java.lang.NullPointerException
\tat org.example.C.run(C.java:3)
\t... 12 more
... 3 more
Suppressed: x
2026-01-02 15:04:06 INFO on
"""
PYTHON = """\
ERROR:root:broken
Traceback (most recent call last):
  File "a.py", line 1, in <module>
    f()
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 3, in <module>
    g()
package.Broken
INFO: on
"""
GO = """\
listening
panic: runtime error: index out of range [5] with length 3

goroutine 1 [running]:
main.f(0x1, {0xc00, 0x2})
\t/src/main.go:12 +0x1d
created by main.main
\t/src/main.go:3 +0x5

goroutine 7 [select]:
net/http.(*Server).Serve(...)
on (again)
"""
DOTNET = """\
Unhandled exception. System.Exception: outer
 ---> System.Exception: inner
   at A.B() in /a.cs:line 1
   --- End of inner exception stack trace ---
   at A.Main()
on
"""
NODE = """\
Error: broken
    at Object.<anonymous> (/a.js:1:7)
    at Module._compile (node:internal:1:1) {
  code: 'E'
}
on
"""
RUBY = """\
a.rb:1:in `f': broken (RuntimeError)
\tfrom a.rb:2:in `<main>'
on
"""
DOTNET_ASYNC = """\
Unhandled exception. System.InvalidOperationException: order lost
   at Shop.A.B() in /src/A.cs:line 1
--- End of stack trace from previous location ---
   at Shop.C.D()
--- End of stack trace from previous location where exception was thrown ---
   at Shop.E.F()
 ---> System.Exception: inner
   at Shop.G.H()
   --- End of inner exception stack trace ---
---> (Inner Exception #1) System.Exception: other<---
2026-01-02 15:04:06 INFO on
"""
GO_OVERFLOW = """\
fatal error: stack overflow

runtime stack:
runtime.throw({0x4a3e5d?, 0x0?})
\t/go/src/runtime/panic.go:1077 +0x5c

goroutine 1 [running]:
main.f(0x1?)
\t/src/main.go:5 +0x1d
...16777182 frames elided...
main.f(0x2?)
\t/src/main.go:5 +0x1d
...additional frames elided...
created by main.main in goroutine 1
\t/src/main.go:3 +0x5

rax    0x0
r10    0xc00004a7f8
rip    0x45f1a1
exit status 2
listening
"""
PHP = """\
PHP Fatal error:  Uncaught RuntimeException: order lost in /srv/a.php:12
Stack trace:
#0 /srv/b.php(5): f(1)
#1 {main}

Next LogicException: not told in /srv/c.php:7
Stack trace:
#0 {main}
  thrown in /srv/a.php on line 12
#5 is next
"""
PHP_CLI = """\
PHP Warning:  Undefined variable $x in /srv/a.php on line 3
PHP Stack trace:
PHP   1. {main}() /srv/a.php:0
PHP   2. f() /srv/a.php:9
PHP Notice:  on
"""
LARAVEL = """\
[2026-01-02 15:04:05] local.ERROR: broken {"exception":"[object] (Exception(code: 0): broken
[stacktrace]
#0 /srv/artisan(37): handle()
#1 {main}
"}
[2026-01-02 15:04:06] local.INFO: on
"""
GROUP = """\
tasks failed
  + Exception Group Traceback (most recent call last):
  |   File "a.py", line 1, in <module>
  | ExceptionGroup: two (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ValueError: 1
    +---------------- 2 ----------------
    | TypeError: 2
    +------------------------------------

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 5, in <module>
KeyError: 'x'
INFO: on
"""
ALONE = """\
Traceback of a call
 * Serving on 127.0.0.1
 one blank
INFO: not indented
During handling of the above exception, another exception occurred:
main.f(0x1)
created by somebody
[signal SIGSEGV]
Error: x
.
... more
...x
C
Suppressed
panic at noon
goroutine pool of 5
   2026-01-02 15:04:05 padded
\t[15:04:05] padded
  01/02 15:04 padded
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (JAVA, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 10]),
        (PYTHON, [0, *[1] * 11, 12]),
        (GO, [0, *[1] * 10, 11]),
        (DOTNET, [0, 0, 0, 0, 0, 5]),
        (NODE, [0, 0, 0, 0, 0, 5]),
        (RUBY, [0, 0, 2]),
        (ALONE, list(range(19))),
        (DOTNET_ASYNC, [*[0] * 10, 10]),
        (GO_OVERFLOW, [*[0] * 20, 20]),
        (PHP, [*[0] * 9, 9]),
        (PHP_CLI, [0, 0, 0, 0, 4]),
        (LARAVEL, [0, 0, 0, 0, 0, 5]),
        (GROUP, [0, *[1] * 14, 15]),
        ("#0 of many\n#1 of many\nNext\nexit status 1\n", [0, 1, 2, 3]),
        ("--- a diff\n---> here\n", [0, 1]),
        ("panic: x\nrax is a register\nrax 0xz\n", [0, 1, 2]),
        ("goroutine 1 [running]:\nmain.f()\non\n", [0, 0, 2]),
        ("fatal error: all asleep\n\n[signal SIGSEGV]\nx y(z)\n", [0, 0, 0, 3]),
        ("Traceback (most recent call last):\n  x\nINFO:root:on\nValueError: x\n", [0, 0, 2, 3]),
        ("Traceback (most recent call last):\nX: y\n\nTraceback (most recent call last):\n",
         [0, 1, 2, 3]),
        ("Traceback (most recent call last):\nValueError\n\nTraceback (most recent call last):\n",
         [0, 0, 0, 3]),
        ("\tat first\n\tat second\n}\n", [0, 0, 0]),
        ("\n\n  \nx\n", [0, 1, 2, 3]),
    ],
)  # fmt: skip
def test_the_lines_of_an_event_point_to_its_first(text: str, expected: list[int]) -> None:
    assert events(text.split("\n")[:-1]) == expected


ALL = (JAVA, PYTHON, GO, DOTNET, NODE, RUBY, DOTNET_ASYNC, GO_OVERFLOW, PHP, LARAVEL, GROUP)


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ("", "\r"),
        ("\x1b[31m", "\x1b[0m"),
        ("\x1b[1;31m", "\x1b[m\r"),
        ("\x1b[2m\x1b[31m", "\x1b[0m\x1b[0m"),
    ],
)
def test_what_a_terminal_adds_to_lines_changes_no_event(
    text: str, before: str, behind: str
) -> None:
    lines = text.split("\n")[:-1]
    assert events([f"{before}{line}{behind}" for line in lines]) == events(lines)


def test_each_output_has_events_of_its_own() -> None:
    lines = ["a", "Traceback (most recent call last):", "  on a", "  File", "X", "Error: y", "x"]
    outputs = ["stdout", "stderr", "stdout", "stderr", "stdout", "stderr", "stderr"]
    assert events(lines, outputs) == [0, 1, 0, 1, 4, 1, 6]


def test_a_malformed_line_is_an_event_of_its_own() -> None:
    data = cri(0, "a") + b"  malformed\n" + cri(1, "  at b")
    rows = parsed(Piece(data))
    assert rows.event_offset.tolist() == [0, len(cri(0, "a")), 0]


def test_the_tail_of_a_fragment_that_is_malformed_points_to_that() -> None:
    lines = [cri(0, "a"), b"bad stdout P b\n", cri(1, "e"), cri(2, "c"), cri(3, "  at d")]
    starts = [0, *accumulate(map(len, lines))]
    rows = parsed(Piece(b"".join(lines)))
    assert rows.event_offset.tolist() == [0, starts[1], starts[1], starts[3], starts[3]]
    assert rows.partial.tolist() == [False, False, True, False, False]
    whole = [lines[0], b"bad stdout F b\n", *lines[2:]]
    assert not parsed(Piece(b"".join(whole))).partial.any()


def test_the_tail_of_a_cut_event_points_to_its_head() -> None:
    head, tail = cri(0, "head,", tag="P"), cri(1, "tail") + cri(2, "next")
    first = parsed(Piece(head, file_start=7))
    state = first.state_after[0].tolist()
    rows = parsed(Piece(tail, 1, file_start=7 + len(head), state=state))
    assert rows.event_offset.tolist() == [7, 7 + len(head) + len(cri(1, "tail"))]
    unknown = parsed(Piece(tail, 1, file_start=9, state=NO_STATE))
    assert unknown.event_offset.tolist() == [9, 9 + len(cri(1, "tail"))]
    plain = parsed(Piece(b"ead\n  x\n", 0, True, format="plain", file_start=9, state=(0, 0, 4, 0)))
    assert plain.event_offset.tolist() == [4, 4]


_parts = st.sampled_from(
    [*{line for text in (JAVA, PYTHON, GO, DOTNET, NODE, ALONE) for line in text.split("\n")}]
)
_lines = st.lists(
    st.tuples(_parts, st.sampled_from(["stdout", "stdout", "stderr"]), st.just("F")), max_size=12
)


@given(_lines, st.data())
def test_events_do_not_depend_on_where_a_commit_ends(lines, data):
    written = [cri(n, *line) for n, line in enumerate(lines)]
    text = b"".join(written)
    ends = [0, *(match.end() for match in re.finditer(b"\n", text))]
    cut = data.draw(st.sampled_from(ends))
    whole = parsed(Piece(text))
    first = parsed(Piece(text[:cut]))
    state = first.state_after[0].tolist()
    second = parsed(Piece(text[cut:], 0, False, state[-1], file_start=cut, state=state))
    offsets = [*first.event_offset.tolist(), *second.event_offset.tolist()]
    assert offsets == whole.event_offset.tolist()
    assert second.state_after.tolist() == whole.state_after.tolist()
    both = parsed(Piece(text[:cut]), Piece(text[cut:], file_start=cut, continues=True))
    assert both.event_offset.tolist() == offsets
