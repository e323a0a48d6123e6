"""Rows as NDJSON, CSV or Parquet, written as they come, with the verdict as the last of it.

An export goes in; bytes come out, of which a client can tell by themselves whether they are all:
NDJSON ends with a record of ``completeness``, CSV with a record that has a value in that column,
and Parquet without its footer is no Parquet.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from indexer.schema import LEVELS
from query_api.questions.answer import plain_rows
from query_api.questions.export import PAGE_ROWS, Export

OTEL: Mapping[str, str] = {
    "time": "timestamp", "level": "severity_text", "message": "body",
    "namespace": "k8s.namespace.name", "pod": "k8s.pod.name", "pod_uid": "k8s.pod.uid",
    "container": "k8s.container.name", "restart": "k8s.container.restart_count",
    "node": "k8s.node.name", "output": "log.iostream", "raw": "everyline.raw",
    "partial": "everyline.partial", "file_id": "everyline.file_id", "epoch": "everyline.epoch",
    "offset": "everyline.offset",
}  # fmt: skip
"""What the columns are called in OpenTelemetry's log data model and its semantic conventions."""

_COLUMNS = (
    "time", "namespace", "pod", "container", "node", "output", "level", "message", "restart",
    "pod_uid", "file_id", "epoch", "offset", "partial", "raw",
)  # fmt: skip
_VERDICT = "completeness"
_METADATA = "everyline."  # of keys in the footer of Parquet
_ROW_GROUP_BYTES = 32 << 20
_UPPER = {level: level.upper() for level in LEVELS}

Written = Iterator[bytes]


def _ndjson(export: Export, names: Mapping[str, str]) -> Written:
    yield msgspec.json.encode(export.header()) + b"\n"
    for table in export.rows():
        for row in plain_rows(table):
            if names:
                row["level"] = _UPPER[row["level"]]
                row = {names[name]: value for name, value in row.items()}
            yield msgspec.json.encode(row) + b"\n"
    yield msgspec.json.encode(export.last()) + b"\n"


def _csv(export: Export, _: Mapping[str, str], *, for_spreadsheet: bool) -> Written:
    buffer = io.StringIO(newline="")
    plain = csv.writer(buffer, lineterminator="\r\n")
    # A verdict that is cut off lacks its closing quote.
    quoted = csv.writer(buffer, lineterminator="\r\n", quoting=csv.QUOTE_ALL)

    def line(cells: list[Any], writer: Any = plain) -> bytes:
        writer.writerow(map(_harmless, cells) if for_spreadsheet else cells)
        written = buffer.getvalue().encode("utf-8")
        buffer.seek(0)
        buffer.truncate()
        return written

    yield line([*_COLUMNS, _VERDICT])
    for table in export.rows():
        for row in plain_rows(table):
            yield line([*(row.get(name) for name in _COLUMNS), None])
    completeness = export.last()[_VERDICT]
    said = "; ".join([completeness["verdict"], *completeness["reasons"]])
    yield line([*(None for _ in _COLUMNS), said], quoted)


def _harmless(cell: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula."""
    is_formula = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{cell}" if is_formula else cell


def _parquet(export: Export, names: Mapping[str, str]) -> Written:
    buffer = io.BytesIO()
    schema = _columns(export.no_rows, names).schema

    def taken() -> bytes:
        written = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        return written

    sink = pa.PythonFile(_Appended(buffer), "w")
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        held: list[pa.Table] = []
        for table in export.rows():
            held.append(table)
            rows = sum(map(len, held))
            if rows >= PAGE_ROWS or sum(each.nbytes for each in held) >= _ROW_GROUP_BYTES:
                writer.write_table(_columns(pa.concat_tables(held), names))
                held.clear()
                yield taken()
        if held:
            writer.write_table(_columns(pa.concat_tables(held), names))
        told = {**export.header(), **export.last()}
        writer.add_key_value_metadata(
            {_METADATA + name: msgspec.json.encode(value).decode() for name, value in told.items()}
        )
    yield taken()


class _Appended:
    """A file that only grows, of which what was written is taken away now and then."""

    def __init__(self, buffer: io.BytesIO) -> None:
        self._buffer = buffer
        self._at = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        """Append bytes."""
        self._at += self._buffer.write(data)
        return len(data)

    def tell(self) -> int:
        """Return how much was written in all."""
        return self._at

    def flush(self) -> None:
        """There is nothing behind it."""

    def close(self) -> None:
        """Take no more."""
        self.closed = True


def _columns(rows: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """Return rows (RESULT_SCHEMA) as columns of Parquet."""
    rows = rows.rename_columns(["time" if n == "ns" else n for n in rows.column_names])
    rows = rows.select(_COLUMNS)
    times = rows["time"].cast(pa.timestamp("ns", tz="UTC"))
    rows = rows.set_column(0, "time", times)
    if names:
        at = _COLUMNS.index("level")
        rows = rows.set_column(at, "level", pc.utf8_upper(rows["level"]))
    return rows.rename_columns([names.get(name, name) for name in _COLUMNS])


FORMATS: Mapping[str, tuple[str, str, Callable[[Export, Mapping[str, str]], Written]]] = {
    "ndjson": ("application/x-ndjson", "ndjson", _ndjson),
    "csv": ("text/csv; charset=utf-8", "csv", partial(_csv, for_spreadsheet=False)),
    "csv-spreadsheet": ("text/csv; charset=utf-8", "csv", partial(_csv, for_spreadsheet=True)),
    "parquet": ("application/vnd.apache.parquet", "parquet", _parquet),
}
"""Of each format the media type, the ending of a file's name, and what writes it."""
