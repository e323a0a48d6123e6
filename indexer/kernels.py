"""What all compiled kernels share: how they are compiled and kept, and the arrays that they fill.

A kernel may call kernels of other modules. numba judges by one file whether a cached kernel is
still good, so the cache has a folder for each state of all files that a kernel can depend on. No
kernel raises or reads outside of the bytes that it was given.
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

import collector

_PACKAGE = Path(__file__).parent
_PACKAGE_CACHE = _PACKAGE / "__pycache__"
# Files without kernels whose values are compiled into some.
_WITH_VALUES = ("kernels.py", "schema.py", "token_filter.py")
_OF_COLLECTOR = ("levels.py", "token_bytes.py", "wire/range.py")


def _writable(directory: Path) -> bool:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def _own_temporary(parent: Path) -> Path:
    """Return a folder for this user alone: cached kernels are code, nobody else may write them."""
    directory = parent / f"everyline-{os.geteuid()}"
    if _writable(directory):
        found = directory.lstat()
        own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
        if own and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return directory
    return Path(tempfile.mkdtemp(prefix="everyline-", dir=parent))


def cache_directory(environ: Mapping[str, str], package: Path = _PACKAGE_CACHE) -> Path:
    """Return where compiled kernels are kept: the first place that can be written.

    In order: ``NUMBA_CACHE_DIR``, ``EVERYLINE_CACHE``, ``package``, ``~/.cache/everyline`` and a
    folder of the user's own in the temporary directory.
    """
    named = (environ.get("NUMBA_CACHE_DIR"), environ.get("EVERYLINE_CACHE"), str(package))
    home = environ.get("HOME")
    cache = str(Path(home, ".cache", "everyline")) if home else None
    for directory in (*named, cache):
        if directory and _writable(Path(directory)):
            return Path(directory)
    return _own_temporary(Path(tempfile.gettempdir()))


def sources() -> list[Path]:
    """Return all files that have kernels, or values that are compiled into them."""
    own = [
        path
        for path in sorted(_PACKAGE.rglob("*.py"))
        if path.name in _WITH_VALUES or b"\n@compiled\n" in path.read_bytes()
    ]
    return own + [Path(collector.__file__).parent / name for name in _OF_COLLECTOR]


def _digest() -> str:
    """Return a name for the state of the sources."""
    digest = hashlib.blake2b(digest_size=8)
    for text in (path.read_bytes() for path in sources()):
        digest.update(len(text).to_bytes(8, "big") + text)
    return digest.hexdigest()


# Set when numba is imported, so not in its types.
numba.config.CACHE_DIR = str(  # type: ignore[attr-defined]
    cache_directory(os.environ) / f"kernels-{_digest()}"
)

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def compiled(function: _Kernel) -> _Kernel:
    """Compile at the first call, for all later processes; the interpreter is free meanwhile."""
    return cast(_Kernel, numba.njit(cache=True, nogil=True)(function))


# The C library's own, several times faster than a compiled loop. Named, not by address, so that a
# cached kernel finds them again.
memchr: Any = types.ExternalFunction("memchr", types.intp(types.intp, types.intc, types.uintp))
memcpy: Any = types.ExternalFunction("memcpy", types.intp(types.intp, types.intp, types.uintp))


def _zeros_below_code(context: Any, bits: Any) -> Any:
    """Return the number of zeros below the lowest bit that is set; one must be."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


zeros_below: Any = intrinsic(_zeros_below_code)

# In a kernel every integer is numba's, so mypy is not told what the arrays hold.
Bytes = NDArray[Any]  # uint8
Codes = NDArray[Any]  # int8
Ints = NDArray[Any]  # int32
Longs = NDArray[Any]  # int64
Flags = NDArray[Any]  # bool
integer: Any = np.int64
"""Widens a byte: unsigned numbers would turn what is reckoned with them unsigned or a float."""


NEWLINE, BLANK, QUOTE, COMMA, COLON, EQUALS = 10, 32, 34, 44, 58, 61
OPENING, BACKSLASH, CLOSING, BRACE = 91, 92, 93, 123


@compiled
def starts_with(data: Bytes, at: int, end: int, word: Bytes) -> bool:
    """Tell whether ``word`` stands at ``at``."""
    if at + word.size > end:
        return False
    for i in range(word.size):  # noqa: SIM110 - a kernel knows no all()
        if data[at + i] != word[i]:
            return False
    return True


@compiled
def string_end(data: Bytes, at: int, end: int) -> int:
    """Return where the quote stands that closes the JSON string before ``at``, else ``end``."""
    base = data.ctypes.data
    start = at
    while at < end:
        found = memchr(base + at, QUOTE, end - at)
        if found == 0:
            return end
        at = found - base
        slash = at
        while slash > start and data[slash - 1] == BACKSLASH:
            slash -= 1
        if (at - slash) % 2 == 0:
            return at
        at += 1
    return end


@compiled
def count_newlines(data: Bytes) -> int:
    """Return how many lines end in ``data``; the compiler makes vectors of it."""
    found = 0
    for at in range(len(data)):
        found += data[at] == NEWLINE
    return found
