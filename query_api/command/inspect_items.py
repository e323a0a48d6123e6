"""What ``everyline inspect`` finds in a file, item by item, as text and as JSON.

An item is what it is called, such as a range, and its fields as plain values. Bytes are shown in
hexadecimal and long ones by their beginning; control characters never reach a terminal.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from indexer.times import format_time
from query_api.command.answer_text import columns, visible

Item = tuple[str, Mapping[str, Any]]

_HEX_BYTES = 32
_CELL_CHARACTERS = 100


def fields_of(entry: Any) -> dict[str, Any]:
    """Return the fields of a struct or dataclass as plain values; bytes stay bytes."""
    plain: dict[str, Any] = msgspec.to_builtins(entry, builtin_types=(bytes,))
    return plain


def line_text(data: bytes) -> str:
    """Return a log line as text, without its newline; what is no UTF-8 is written out."""
    return data.removesuffix(b"\n").decode("utf-8", "backslashreplace")


def as_json(found: Any, indent: int | None = None) -> str:
    """Return JSON; bytes are hexadecimal, times nanoseconds since 1970."""
    return json.dumps(found, default=_hex, ensure_ascii=False, indent=indent)


def _hex(value: bytes) -> str:
    if len(value) <= _HEX_BYTES:
        return value.hex()
    return f"{value[:_HEX_BYTES].hex()}… ({len(value)} bytes)"


def as_text(items: Iterable[Item]) -> Iterator[str]:
    """Yield lines: what there is one of as its fields, what there are several of as a table.

    Log lines come as they are read, everything else once all of its kind is known.
    """
    for what, group in itertools.groupby(items, lambda item: item[0]):
        if what == "line":
            for _, fields in group:
                yield "  ".join(visible(_cell(*field)) for field in fields.items())
            continue
        rows = [
            {key.removesuffix("_ns"): _short(_cell(key, value)) for key, value in each.items()}
            for _, each in group
        ]
        yield f"{what}:" if len(rows) == 1 else f"{what}: {len(rows)}"
        heads = tuple(dict.fromkeys(itertools.chain.from_iterable(rows)))
        if len(rows) == 1:
            width = max(map(len, heads))
            lines = [f"{key:<{width}}  {visible(rows[0][key])}" for key in heads]
        else:
            lines = columns(heads, ([row.get(head) for head in heads] for row in rows))
        yield from (f"  {line}" for line in lines)


def _cell(name: str, value: Any) -> str:
    if value is None or value in ("", [], {}, ()):
        return "-"
    if isinstance(value, bytes):
        return _hex(value)
    if name.endswith("_ns") and isinstance(value, int):
        return format_time(value) if value else "-"
    if isinstance(value, (dict, list, tuple)):
        return as_json(value)
    return str(value)


def _short(cell: str) -> str:
    return cell if len(cell) <= _CELL_CHARACTERS else cell[: _CELL_CHARACTERS - 1] + "…"
