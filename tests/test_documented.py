"""The pages say what the code has: settings, metrics and routes, rooms and the places of words."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import prometheus_client
import pytest

from collector.metrics import CollectorMetrics
from collector.process import described
from collector.settings import CollectorSettings
from indexer.keeper.metrics import KeeperMetrics
from indexer.keeper.settings import KeeperSettings
from indexer.metrics import IndexerMetrics
from indexer.settings import IndexerSettings
from query_api.metrics import QueryMetrics
from query_api.settings import QuerySettings

ROOT = Path(__file__).parents[1]
REFERENCE = (ROOT / "deploy" / "REFERENCE.md").read_text("utf-8").splitlines()


def settings() -> Iterator[str]:
    """Yield the row of every setting."""
    sections: tuple[tuple[str, type[msgspec.Struct]], ...] = (
        ("collector", CollectorSettings),
        ("indexer", IndexerSettings),
        ("keeper", KeeperSettings),
        ("query", QuerySettings),
    )
    for section, kind in sections:
        for name, (default, text) in described(kind).items():
            yield f"| {section} | `{name}` | `{default}` | {text} |"


def metrics() -> Iterator[str]:
    """Yield the row of every metric."""
    registry = prometheus_client.CollectorRegistry()
    for kind in (CollectorMetrics, IndexerMetrics, KeeperMetrics, QueryMetrics):
        kind(registry)
    for family in registry.collect():
        suffix = "_total" if family.type == "counter" else ""
        yield f"| `{family.name}{suffix}` | {family.type} | {family.documentation} |"


def routes() -> Iterator[str]:
    """Yield the first cells of the row of every route."""
    openapi = json.loads((ROOT / "tests" / "golden" / "openapi.json").read_text("utf-8"))
    for path, methods in openapi["paths"].items():
        for method in methods:
            yield f"| `{method.upper()} {path}` |"


@pytest.mark.parametrize("row", [*settings(), *metrics()])
def test_each_setting_and_metric_is_in_the_reference(row: str) -> None:
    assert row in REFERENCE


@pytest.mark.parametrize("row", list(routes()))
def test_each_route_is_in_the_reference(row: str) -> None:
    assert any(line.startswith(row) for line in REFERENCE)


@pytest.mark.parametrize("package", ["collector", "indexer", "query_api"])
def test_each_room_is_in_the_architecture(package: str) -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    rooms = [path.parent.name for path in (ROOT / package).glob("*/__init__.py")]
    assert rooms
    assert [room for room in rooms if f"| `{package}/{room}` |" not in page] == []


@pytest.mark.parametrize(
    "module",
    [
        "collector/files/life_cycle.py",
        "collector/ship/batch_state.py",
        "indexer/ownership.py",
        "indexer/keeper/fence.py",
    ],
)
def test_each_life_cycle_is_drawn_in_the_architecture_as_in_its_module(module: str) -> None:
    doc = ast.get_docstring(ast.parse((ROOT / module).read_text("utf-8"))) or ""
    drawn = [line.strip() for line in doc.splitlines() if line.startswith("  ")]
    page = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    assert drawn
    assert [line for line in drawn if line not in page] == []
    states = re.findall(r"^    ([A-Z_]+) = ", (ROOT / module).read_text("utf-8"), re.MULTILINE)
    assert [state for state in states if state not in "\n".join(drawn)] == []


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md", "GLOSSARY.md", "README.md"])
def test_each_place_that_a_page_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    named = re.findall(
        r"`((?:collector|indexer|query_api|deploy|load_tests|tests)/[\w./-]+)`", text
    )
    assert [place for place in named if not (ROOT / place).exists()] == []
