"""What a running collector says of itself: made where nothing changes meanwhile, asked anywhere."""

import asyncio
import json
import os
import signal
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from collector.collect import Collector
from collector.run import _run
from collector.settings import CollectorSettings
from tests.collector.node import Node, lines
from tests.real_parts.guard import free_port


def asked(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            found = json.load(response)
    except (urllib.error.URLError, OSError):  # not yet there, or not yet ready
        return {}
    assert isinstance(found, dict)
    return found


async def test_the_status_is_made_on_the_loop_and_served_by_other_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path)
    node.write(node.file(), lines(0, 5))
    makers: set[int] = set()
    make = Collector.status

    def noted(collector: Collector) -> dict[str, Any]:
        makers.add(threading.get_ident())
        return make(collector)

    monkeypatch.setattr(Collector, "status", noted)
    port = free_port()
    settings = CollectorSettings(
        roots=str(node.root),
        state=str(node.state),
        topic=str(node.topic_folder),
        listen=f"[::1]:{port}",
        scan_interval_ms=20,
        flush_age_ms=20,
    )
    running = asyncio.create_task(_run(settings))
    try:
        async with asyncio.timeout(60):
            while (await asyncio.to_thread(asked, f"http://[::1]:{port}/readyz")) == {}:
                await asyncio.sleep(0.01)
            while not (await asyncio.to_thread(asked, f"http://[::1]:{port}/status")).get("files"):
                await asyncio.sleep(0.01)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running == 0
    assert makers == {threading.get_ident()}
