"""When a file was made, as its file system says.

An open file goes in; out come nanoseconds since 1970, or None where the file system, the kernel or
the C library does not know. Python offers no such call for Linux.
"""

import ctypes
import struct

# linux/stat.h and fcntl.h: the file that the descriptor names, its time of birth.
_AT_EMPTY_PATH = 0x1000
_STATX_BTIME = 0x800
_STATX_BYTES = 256
_MASK_AT, _BTIME_AT = 0, 80

_libc = ctypes.CDLL(None)


def birth_ns(fd: int) -> int | None:
    """Return when the open file was made."""
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    try:
        failed = _libc.statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, buffer)
    except AttributeError:  # a C library of before 2018
        return None
    (mask,) = struct.unpack_from("=I", buffer, _MASK_AT)
    if failed or not mask & _STATX_BTIME:
        return None
    seconds, nanoseconds = struct.unpack_from("=qI", buffer, _BTIME_AT)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
