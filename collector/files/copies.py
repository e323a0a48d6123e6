"""Which file a rotated one was copied or compressed from, where its name cannot tell.

A plain file is named by its inode, and a copy has another one. What has been read of the original,
by its running CRC, is looked for at the start of the copy.
"""

from collections.abc import Iterable

from collector.checksum import crc32
from collector.files.checkpoint import TAIL_BYTES
from collector.files.content import Content
from collector.files.known import ClosedFile
from collector.files.life_cycle import Stage
from collector.files.tail import Tail, is_same_content

_STEP_BYTES = 1 << 20


def source_of(
    copy: Tail, opened: Iterable[Tail], closed: Iterable[ClosedFile]
) -> Tail | ClosedFile | None:
    """Return what the rotated file ``copy`` holds the bytes of: a file that is open, or was.

    One that is not compressed is a copy only of an open file of the same name, less what the
    rotation has added, which the runtime truncates when it has been copied.
    """
    for each in opened:
        if each.stream != copy.stream or each.stage is Stage.UNBORN or each.compressed:
            continue
        if not copy.compressed and not _is_rotated_from(copy, each):
            continue
        if not copy.compressed and is_same_content(each):
            found = _is_start_of(copy.content, each.content)  # it may be in the making
        else:
            found = _begins_with(copy.content, each.acked_mark.offset, each.acked_mark.crc)
        if found:
            return each
    for known in closed if copy.compressed else ():
        state = known.state
        if state.stream == copy.stream and _begins_with(copy.content, state.acked, state.crc):
            return known
    return None


def _is_rotated_from(copy: Tail, source: Tail) -> bool:
    same_place = copy.path.parent == source.path.parent
    named_after = copy.path.name.startswith(source.path.name)
    return same_place and named_after and source.stage is Stage.FOLLOWED


def _is_start_of(copy: Content, source: Content) -> bool:
    size = copy.size()
    length = min(size, TAIL_BYTES)
    return size <= source.size() and all(
        copy.read(length, offset) == source.read(length, offset) for offset in (0, size - length)
    )


def _begins_with(content: Content, length: int, crc: int) -> bool:
    at = running = 0
    while at < length:
        try:
            data = content.read(min(_STEP_BYTES, length - at), at)
        except OSError:
            return False  # it is told when the file is to be read
        if not data:
            return False
        at, running = at + len(data), crc32(data, running)
    return length > 0 and running == crc
