"""Rows of every kind, drawn at random, and all of them again as pages of a search have them."""

import json
import random
from collections.abc import Mapping
from typing import Any

import httpx2

from tests.query_api.written import HOUR, START_NS, Line, Written

EVER: Mapping[str, Any] = {"from": START_NS, "to": START_NS + 3 * HOUR}
NOW_NS = START_NS + 4 * HOUR


def message(draw: random.Random) -> str:
    """Return a message: JSON, pairs, or text that is none of both, and what looks like it."""
    status, user = draw.choice([200, 404, 500, "500", None, 1.5]), draw.choice("abcäé")
    tags = draw.sample(["red", "green", "a b", 'q"x', "=1+1", "\t", "\x1b[31m"], draw.randrange(3))
    return draw.choice(
        [
            json.dumps({"level": "error", "status": status, "user": {"name": user}, "tags": tags}),
            json.dumps({"user.name": user, "tags": {"deep": [{"x": status}, {"x": 2}]}}),
            f'level=warn status={status} user.name="{user} \\"quoted\\"" status=200',
            f"plain {user} text, a=b=c, x={draw.randrange(5)}",
            '{"status": 200, "broken"',
            "=cmd()",
            "",
            "not UTF-8: \udcff",
        ]
    )


def ship(written: Written, seed: int, commits: int = 4, lines: int = 30) -> None:
    """Commit lines of three hours, and an inventory that vouches for all of them."""
    draw = random.Random(seed)
    for _ in range(commits):
        written.ship(
            *(
                Line(
                    START_NS + draw.randrange(3 * HOUR) // 10**9 * 10**9,
                    message(draw),
                    pod=f"api-{draw.randrange(3)}",
                    namespace=draw.choice(["shop", "bank"]),
                    output=draw.choice(["stdout", "stderr"]),
                )
                for _ in range(lines)
            )
        )
    written.inventory(NOW_NS)


async def all_rows(client: httpx2.AsyncClient, **asked: Any) -> list[dict[str, Any]]:
    """Return all rows of a search, page by page."""
    asked = {**EVER, **asked, "limit": 7}
    rows: list[dict[str, Any]] = []
    while True:
        page = (await client.get("/v1/search", params=asked)).json()
        rows += page["rows"]
        if not page["next"]:
            return rows
        asked["cursor"] = page["next"]
