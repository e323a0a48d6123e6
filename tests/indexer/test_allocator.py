"""Memory that was given back is handed out again without a page fault."""

import platform
import subprocess
import sys

import pytest

from tests.real_parts.guard import ROOT

_FAULTS = """\
import resource, sys, threading
import pyarrow as pa
from indexer.allocator import keep_pages

def use():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * (64 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "keep":
    keep_pages()
use()  # the first time there is nothing to use again
thread = threading.Thread(target=lambda: print(use(), pa.default_memory_pool().backend_name))
thread.start()
thread.join()
"""


def run(word: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS, word], cwd=ROOT, check=True, capture_output=True, text=True
    )
    faults, pool = done.stdout.split()
    return int(faults), pool


@pytest.mark.real
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not GNU's")
def test_what_was_given_back_is_used_again_by_any_thread_and_arrow_has_the_same_heap() -> None:
    again, _ = run("default")
    kept, pool = run("keep")
    assert kept < again / 10
    assert pool == "system"


_GIVEN_BACK = """\
import psutil
from indexer.allocator import give_pages_back

held = [bytes(1000) for _ in range(200_000)]
last = held[-1]  # at the end of the heap, so that the rest cannot go by itself
del held
before = psutil.Process().memory_info().rss
give_pages_back()
print(before - psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not GNU's")
def test_memory_that_was_freed_goes_back_to_the_system() -> None:
    given_back = subprocess.run(
        [sys.executable, "-c", _GIVEN_BACK], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert int(given_back.stdout) > 100_000_000
