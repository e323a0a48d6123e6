"""Answers as text for people: rows in columns, what is missing in words.

JSON of the service goes in, lines come out. Colour only where a terminal shows it; control
characters of a log line are never passed on to the terminal.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_RESET = "\x1b[0m"
_COLOURS = {
    "fatal": "\x1b[1;31m",
    "error": "\x1b[31m",
    "warn": "\x1b[33m",
    "info": "\x1b[32m",
    "debug": "\x1b[36m",
    "trace": "\x1b[2m",
    "complete": "\x1b[32m",
    "incomplete": "\x1b[31m",
    "unknown": "\x1b[33m",
}
# Controls; what turns text around or has no width; line breaks that are no ASCII.
_OTHERS = r"\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff"
_CONTROL = re.compile(rf"[\x00-\x08\x0a-\x1f{_OTHERS}]")
_IN_JSON = re.compile(rf"[{_OTHERS}]")


class Paint:
    """Colours words, or leaves them as they are."""

    def __init__(self, on: bool) -> None:
        """``on``: the output is a terminal, and nobody asked for no colour."""
        self._on = on

    def __call__(self, text: str, name: str) -> str:
        """Return the text in the colour of a level or a verdict."""
        if self._on and name in _COLOURS:
            return _COLOURS[name] + text + _RESET
        return text


def visible(text: str) -> str:
    """Return the text with control characters written out, so that they do nothing."""
    return _CONTROL.sub(lambda match: _written_out(ord(match[0])), text)


def visible_json(text: str) -> str:
    """Return JSON that means the same, with nothing in it that a terminal would act on."""
    return _IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _written_out(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def row_line(row: Mapping[str, Any], paint: Paint) -> str:
    """Return one row: time, pod/container, level, message."""
    level = row["level"]
    shown = paint(f"{'-' if level == 'unknown' else level:<5}", "" if level == "unknown" else level)
    place = visible(f"{row['pod']}/{row['container']}")
    return f"{row['time']}  {place}  {shown}  {visible(row['message'])}"


def columns(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return a table, each column as wide as its widest entry."""
    shown = [[visible("-" if v is None else str(v)) for v in row] for row in rows]
    lines = [[head.upper() for head in heads], *shown]
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
    return [line.rstrip() for line in padded]


def gap_lines(gaps: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return gaps as a table."""
    heads = ("state", "type", "where", "what", "from", "to", "reason")
    return columns(heads, (_gap_cells(gap) for gap in gaps))


def _gap_cells(gap: Mapping[str, Any]) -> list[Any]:
    if gap["pod"]:
        where = f"{gap['node']} {gap['namespace']}/{gap['pod']}/{gap['container']}"
    else:
        where = f"{gap['node'] or 'any node'}, partition {gap['partition']}"
    state = gap["state"] + (" (explained)" if gap["explained"] else "")
    return [state, gap["type"], where, _what(gap), gap["from"], gap["to"], gap["reason"]]


def _what(gap: Mapping[str, Any]) -> str:
    if gap["batches"]:
        return "batches {}..{}".format(*gap["batches"])
    if gap["positions"]:
        return "positions {}..{}".format(*gap["positions"])
    end = gap["end"] if gap["end_exact"] else f"{gap['end']} or later"
    return f"bytes {gap['start']}..{end}"


def damaged_lines(damaged: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what storage has damaged, one line each."""
    return [visible(f"damaged: {each['object']}: {each['fault']}") for each in damaged]


def stream_lines(streams: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return streams as a table."""
    heads = ("node", "stream", "restart", "files", "rows", "bytes", "missing", "first", "last")
    return columns(
        heads,
        (
            [
                each["node"],
                f"{each['namespace']}/{each['pod']}/{each['container']}",
                each["restart"],
                each["files"],
                each["rows"],
                each["bytes"],
                each["missing_bytes"],
                each["first_time"],
                each["last_time"],
            ]
            for each in streams
        ),
    )


def status_lines(status: Mapping[str, Any]) -> list[str]:
    """Return the state of the pipeline."""
    nodes = columns(
        ("node", "complete until", "behind", "held back by"),
        (
            [
                node["node"],
                node["complete_until"],
                None if node["lag_ms"] is None else f"{node['lag_ms'] / 1000:.1f} s",
                "; ".join([node["held_back_by"], *node["errors"]]),
            ]
            for node in status["nodes"]
        ),
    )
    partitions = columns(
        ("partition", "topic", "generation", "position", "last record"),
        (
            [p["partition"], p["topic"], p["generation"], p["position"], p["last_record"]]
            for p in status["partitions"]
        ),
    )
    return [
        f"cluster {status['cluster']}: version {status['version']} of its table, "
        f"{status['rows']} rows in {status['segments']} segments, {status['bytes']} bytes",
        f"data from {status['first_time'] or '-'} to {status['last_time'] or '-'}",
        f"open gaps: {status['open_gaps']}",
        *damaged_lines(status["damaged"]),
        "",
        *nodes,
        "",
        *partitions,
    ]


def completeness_lines(completeness: Mapping[str, Any], paint: Paint) -> list[str]:
    """Return the completeness statement in words."""
    verdict = completeness["verdict"]
    until = completeness["complete_until"] or "no time yet"
    lines = [f"{paint(verdict, verdict)}: complete until {until}"]
    lines += [f"  {visible(reason)}" for reason in completeness["reasons"]]
    shown = completeness["gaps"][:5]
    lines += [f"  {line}" for line in (gap_lines(shown) if shown else [])]
    if completeness["gaps_total"] > len(shown):
        lines.append(f"  and {completeness['gaps_total'] - len(shown)} more: everyline gaps")
    lines += [f"  {visible(error)}" for error in completeness["scan"]["errors"][:5]]
    return lines
