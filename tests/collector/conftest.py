"""Fixtures of the collector's tests."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.collector.node import Node


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Node]]:
    """Makes a node with the settings given; its topic and files are closed afterwards."""
    made: list[Node] = []

    def new(**settings: Any) -> Node:
        made.append(Node(tmp_path, **settings))
        return made[-1]

    yield new
    for node in made:
        if node.topic is not None:
            await node.crash()
