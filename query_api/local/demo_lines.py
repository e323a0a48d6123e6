"""What the demo's pods log: one function a kind of service, of made-up but lifelike lines.

Randomness and the time of the event go in; output and message of each of its lines come out.
"""

import json
import random
from collections.abc import Callable, Iterator

from indexer.times import format_time, to_datetime

Line = tuple[str, str]
"""Output and message."""
Writer = Callable[[random.Random, int], Iterator[Line]]
"""Gives the lines of one event; takes randomness and the time in ns since 1970."""


def random_hex(rng: random.Random, digits: int) -> str:
    """Return that many hexadecimal digits."""
    return f"{rng.getrandbits(4 * digits):0{digits}x}"


def strftime(now_ns: int, form: str) -> str:
    """Return a time in UTC, to the second."""
    return to_datetime(now_ns).strftime(form)


def checkout_lines(rng: random.Random, now_ns: int) -> Iterator[Line]:
    """A shop's checkout: one JSON object a line."""
    order, trace = f"o-{rng.randrange(10**6, 10**7)}", random_hex(rng, 32)
    took_ms = round(rng.lognormvariate(3.4, 0.7), 1)
    cents = rng.randrange(499, 40_000)
    city = rng.choice(("Zürich", "São Paulo", "Kraków", "東京", "Leeds", "Austin", "Malmö"))
    kinds: tuple[tuple[int, str, dict[str, object]], ...] = (
        (50, "order placed", {"items": rng.randint(1, 9), "total_cents": cents, "city": city}),
        (30, "payment authorized", {"total_cents": cents, "card": rng.choice(("visa", "amex"))}),
        (25, "cart updated", {"items": rng.randint(1, 12)}),
        (8, "payment declined", {"reason": rng.choice(("insufficient funds", "expired card"))}),
        (4, "inventory is slow, trying again", {"attempt": rng.randint(1, 3)}),
        (3, "inventory lookup failed", {"error": "dial tcp 10.4.7.21:9090: connection refused"}),
    )
    levels = ("info", "info", "info", "warn", "warn", "error")
    (pick,) = rng.choices(range(len(kinds)), [kind[0] for kind in kinds])
    _, message, more = kinds[pick]
    line: dict[str, object] = {
        "time": format_time(now_ns)[:-7] + "Z",
        "level": levels[pick],
        "msg": message,
    }
    line |= {"order_id": order, "trace_id": trace, "duration_ms": took_ms}
    yield "stdout", json.dumps(line | more, ensure_ascii=False)


def web_lines(rng: random.Random, now_ns: int) -> Iterator[Line]:
    """A web server: access lines, and now and then an error on stderr."""
    client = f"10.4.{rng.randrange(16)}.{rng.randrange(2, 250)}"
    path = rng.choice(
        (
            "/",
            "/products",
            f"/products/{rng.randrange(1000, 9999)}",
            "/cart",
            "/checkout",
            "/static/app.css",
            f"/search?q={rng.choice(('lamp', 'oak+table', 'rug', 'mug'))}",
            "/healthz",
        )
    )
    (status,) = rng.choices((200, 304, 301, 404, 499, 502), (78, 12, 3, 5, 1, 1))
    agent = rng.choice(
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Mobile/15E148",
            "kube-probe/1.31",
        )
    )
    size = rng.randrange(180, 60_000) if status == 200 else rng.randrange(0, 400)
    took = rng.lognormvariate(-3.2, 0.8)
    if status == 502:
        stamp = strftime(now_ns, "%Y/%m/%d %H:%M:%S")
        yield (
            "stderr",
            (
                f"{stamp} [error] 31#31: *{rng.randrange(10**5)} upstream timed out (110: "
                f'Connection timed out), client: {client}, request: "GET {path}"'
            ),
        )
    stamp = strftime(now_ns, "%d/%b/%Y:%H:%M:%S +0000")
    request = f'"GET {path} HTTP/1.1" {status} {size} "-" "{agent}" {took:.3f}'
    yield "stdout", f"{client} - - [{stamp}] {request}"


_FRAMES = (
    "com.example.ledger.PostingService.post(PostingService.java:118)",
    "com.example.ledger.AccountLock.hold(AccountLock.java:57)",
    "com.example.ledger.api.EntryController.create(EntryController.java:74)",
    "com.zaxxer.hikari.HikariDataSource.getConnection(HikariDataSource.java:128)",
    "org.springframework.web.servlet.DispatcherServlet.doDispatch(DispatcherServlet.java:1089)",
    "java.base/java.util.concurrent.ThreadPoolExecutor.runWorker(ThreadPoolExecutor.java:1144)",
    "java.base/java.lang.Thread.run(Thread.java:1583)",
)


def ledger_lines(rng: random.Random, now_ns: int) -> Iterator[Line]:
    """A Java service: stack traces, and rarely a line longer than the runtime takes at once."""

    def head(level: str, name: str) -> str:
        stamp = strftime(now_ns, "%Y-%m-%d %H:%M:%S") + f".{now_ns // 10**6 % 1000:03d}"
        return f"{stamp} {level:>5} 1 --- [exec-{rng.randint(1, 8)}] c.e.ledger.{name:<16} : "

    entry, account = random_hex(rng, 12), f"CH{rng.randrange(10**10):010d}"
    (kind,) = rng.choices(("posted", "locked", "failed", "dumped"), (84, 9, 5, 2))
    if kind == "posted":
        amount = rng.randrange(100, 9_000_000) / 100
        yield (
            "stdout",
            head("INFO", "PostingService")
            + (f"posted entry {entry} account={account} amount={amount:.2f} CHF"),
        )
    elif kind == "locked":
        waited_ms = rng.randrange(200, 4000)
        yield "stdout", head("WARN", "AccountLock") + f"waited {waited_ms} ms for {account}"
    elif kind == "failed":
        yield "stdout", head("ERROR", "PostingService") + f"cannot post entry {entry}"
        yield (
            "stdout",
            (
                "java.sql.SQLTransientConnectionException: ledger-pool - no connection,"
                f" request timed out after {rng.randrange(30_000, 30_040)}ms"
            ),
        )
        for frame in _FRAMES:
            yield "stdout", f"\tat {frame}"
        yield "stdout", "Caused by: java.net.SocketTimeoutException: Read timed out"
        yield "stdout", f"\t... {rng.randint(12, 40)} common frames omitted"
    else:
        rows = ", ".join(
            f"({random_hex(rng, 12)}, {account}, {i})" for i in range(rng.randint(400, 900))
        )
        yield "stdout", head("DEBUG", "Reconciliation") + f"postings differ: {rows}"


def ingress_lines(rng: random.Random, now_ns: int) -> Iterator[Line]:
    """An ingress controller: logfmt."""
    host = rng.choice(("shop.example", "shop.example", "pay.example", "reports.example"))
    (status,) = rng.choices((200, 201, 404, 429, 503), (80, 8, 6, 3, 3))
    level = "info" if status < 429 else "warn" if status == 429 else "error"
    message = {429: "rate limited", 503: "no healthy upstream"}.get(status, "request completed")
    yield (
        "stdout" if status < 429 else "stderr",
        (
            f'time={format_time(now_ns)[:-4]}Z level={level} msg="{message}" host={host} '
            f"method={rng.choice(('GET', 'GET', 'GET', 'POST'))} path=/api/v1/{rng.choice(_PATHS)} "
            f"status={status} bytes={rng.randrange(90, 20_000)} "
            f"duration={rng.lognormvariate(-3.5, 0.9):.4f} "
            f"upstream=10.4.{rng.randrange(8)}.{rng.randrange(2, 250)}:8080 "
            f"request_id={random_hex(rng, 16)}"
        ),
    )


_PATHS = ("orders", "cart", "products", "entries", "accounts", "reports")


def report_lines(rng: random.Random, now_ns: int) -> Iterator[Line]:
    """A batch job: progress for people."""
    region = rng.choice(("emea", "apac", "amer"))
    if rng.random() < 0.05:
        yield "stderr", f"[report] skipped a row of {region}: amount is not a number: 'n/a'"
    yield (
        "stdout",
        (
            f"[report] {region}: {rng.randrange(200, 5000)} rows read in {rng.randrange(40, 900)} "
            f"ms, {rng.randrange(4)} skipped"
        ),
    )
