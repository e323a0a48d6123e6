"""Answers in the shape that Loki's clients read: the order of the keys and each type count.

Results and what they may be missing go in; plain values for JSON come out. Clients read a document
from its start to its end: flags come before the result, and warnings last, as they are known last.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from query_api.completeness.statement import Completeness

CATEGORIZED = "categorize-labels"
"""The flag by which a client asks for three elements a line."""

WHERE = "`everyline gaps` and /v1/gaps of the service say what and why"


def query_answer(
    kind: str,
    result: Any,
    found: Sequence[tuple[Completeness, Mapping[str, Any]]],
    *,
    categorized: bool = False,
    lines: int = 0,
    is_cut: bool = False,
) -> dict[str, Any]:
    """Return the answer to a query, of what was found with its verdicts and costs."""
    flags = {"encodingFlags": [CATEGORIZED]} if categorized else {}
    costs = [cost for _, cost in found]
    data = {"resultType": kind, **flags, "result": result, "stats": _stats(costs, lines)}
    answer: dict[str, Any] = {"status": "success", "data": data}
    verdicts = [completeness for completeness, _ in found]
    if warning := warning_of(verdicts, is_cut):
        answer["warnings"] = [warning]
    if known := sorted({each.complete_until for each in verdicts if each.complete_until}):
        answer["infos"] = [f"complete until {known[0]}"]
    return answer


def success(data: Any) -> dict[str, Any]:
    """Return the answer to a question about labels."""
    return {"status": "success", "data": data}


def warning_of(verdicts: Iterable[Completeness], is_cut: bool) -> str:
    """Return the one sentence that says what an answer may be missing; "" if nothing.

    A client splits a question by time and shows equal texts once, so it has no time and no count.
    """
    said: list[str] = []
    worst = {each.verdict for each in verdicts}
    gaps = sorted({gap.type for each in verdicts for gap in each.gaps})
    if gaps:
        said.append(f"lines are missing ({', '.join(gaps)})")
    if any(each.removed_total for each in verdicts):
        said.append("lines have expired or were deleted on request")
    if any(each.scan.segments_failed or each.scan.cut_off for each in verdicts):
        said.append("not all of the table could be read")
    if is_cut:
        said.append("the lines are too long for one answer: ask for fewer")
    if not worst - {"complete"} and not said:
        return ""
    if "unknown" in worst:
        said.append("lines may still be on their way")
    word = "unknown" if worst <= {"complete", "unknown"} else "incomplete"
    reasons = "; ".join(said)
    return f"{word}: {reasons}. {WHERE}"


def streams_of(
    rows: Iterable[tuple[Mapping[str, str], Mapping[str, str], int, str]], categorized: bool
) -> list[dict[str, Any]]:
    """Return lines by stream: of each its labels, those of the line, time and text."""
    found: dict[tuple[tuple[str, str], ...], list[Any]] = {}
    for labels, of_line, ns, text in rows:
        stream = labels if categorized else {**labels, **of_line}
        value: list[Any] = [str(ns), text]
        if categorized:
            value.append({"structuredMetadata": of_line} if of_line else {})
        found.setdefault(tuple(sorted(stream.items())), []).append(value)
    return [{"stream": dict(stream), "values": values} for stream, values in found.items()]


def seconds(ns: int) -> float | int:
    """Return a point in time as Loki writes it, to the millisecond."""
    whole, rest = divmod(ns, 10**9)
    return whole + rest // 10**6 / 1000 if rest // 10**6 else whole


def number(value: float) -> str:
    """Return a value as Loki writes it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))


def _stats(costs: Sequence[Mapping[str, Any]], lines: int) -> dict[str, Any]:
    size = sum(cost["bytes"] for cost in costs)
    took_s = sum(cost["ms"] for cost in costs) / 1000
    summary = {
        "bytesProcessedPerSecond": round(size / took_s) if took_s else 0,
        "linesProcessedPerSecond": round(lines / took_s) if took_s else 0,
        "totalBytesProcessed": size,
        "totalLinesProcessed": lines,
        "execTime": took_s,
        "queueTime": 0.0,
        "subqueries": 0,
        "totalEntriesReturned": lines,
    }
    return {"summary": summary, "store": {}, "ingester": {}}
