"""What every process has: settings in parts, and logs that do not repeat themselves."""

import contextlib
import http.client
import logging
import re
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import prometheus_client
import pytest

from collector.errors import SettingError
from collector.process import Seldom, StatusServer, load_settings, setting
from collector.settings import CollectorSettings
from indexer.ledger.ledger import EXPLAINED_WITHIN_NS


class Door(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    width_mm: Annotated[int, setting("width of the door", ge=1)] = 900
    colour: Annotated[str, setting("its colour")] = "red"


class House(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    door: Door = Door()
    rooms: Annotated[int, setting("how many rooms it has", ge=1)] = 4


def test_settings_of_a_part_stand_beside_those_of_the_whole(tmp_path: Path) -> None:
    config = tmp_path / "house.toml"
    config.write_text("[house]\ncolour = 'blue'\nwidth_mm = 700\n")
    argv = ["--config", str(config), "--rooms", "2"]
    found = load_settings(House, "house", argv, {"EVERYLINE_HOUSE_WIDTH_MM": "800"})
    assert found == House(door=Door(width_mm=800, colour="blue"), rooms=2)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("DOOR", "unknown setting 'door'"),
        ("COLOR", "did you mean 'colour'"),
        ("WIDTH_MM", r"Expected `int` >= 1 - at `\$.width_mm`"),
    ],
)
def test_a_setting_of_a_part_is_named_without_the_part(name: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        load_settings(House, "house", [], {f"EVERYLINE_HOUSE_{name}": "0"})


def test_a_library_says_the_same_once_a_minute_and_we_always() -> None:
    now = 0.0
    seldom = Seldom("noisy", lambda: now)

    def passes(name: str, text: str) -> bool:
        return seldom.filter(logging.LogRecord(name, logging.ERROR, "", 0, text, ("b",), None))

    assert [passes("noisy.client", "no broker %s") for _ in range(3)] == [True, False, False]
    assert passes("noisy", "another %s")
    assert [passes("collector.ship.shipper", "no broker %s") for _ in range(3)] == [True] * 3
    now = 59.0
    assert not passes("noisy.client", "no broker %s")
    now = 61.0
    assert [passes("noisy.client", "no broker %s") for _ in range(2)] == [True, False]


@contextlib.contextmanager
def running(address: str) -> Iterator[StatusServer]:
    status = {"healthy": True, "ready": False}
    server = StatusServer(address, prometheus_client.CollectorRegistry(), lambda: status)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def answer(server: StatusServer, host: str, path: str = "/healthz") -> int:
    connection = http.client.HTTPConnection(host, server.server_address[1], timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("address", "hosts"),
    [
        ("127.0.0.1:0", ["127.0.0.1"]),
        (":0", ["127.0.0.1"]),
        ("localhost:0", ["localhost"]),
        ("[::1]:0", ["::1"]),
        ("::1:0", ["::1"]),
        ("[::]:0", ["::1", "127.0.0.1"]),
        ("0.0.0.0:0", ["127.0.0.1"]),
    ],
)
def test_the_status_is_served_at_addresses_of_both_families(address: str, hosts: list[str]) -> None:
    with running(address) as server:
        assert [answer(server, host) for host in hosts] == [200] * len(hosts)
        assert answer(server, hosts[0], "/readyz") == 503


@pytest.mark.parametrize("address", ["nowhere", "[::1]", "127.0.0.1:x", "no.such.host.invalid:0"])
def test_an_address_at_which_nobody_can_listen_is_named(address: str) -> None:
    said = f"cannot listen on '{re.escape(address)}'"
    with pytest.raises(SettingError, match=said), running(address):
        pass


def test_clients_that_say_nothing_neither_pile_up_nor_hold_up_others() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running("[::1]:0"))
        place = ("::1", server.server_address[1])
        silent = [stack.enter_context(socket.create_connection(place)) for _ in range(100)]
        silent[-1].sendall(b"GET /sta")
        assert answer(server, "::1") == 200
        assert server.clients <= 16
        assert silent[0].recv(1) == b""  # the first were cut off


def test_a_file_is_not_forgotten_sooner_than_the_ledger_relies_on() -> None:
    hour_ms = EXPLAINED_WITHIN_NS // 1_000_000
    load = partial(load_settings, CollectorSettings, "collector", environ={})
    assert load([]).gone_after_ms >= hour_ms
    assert load([f"--gone-after-ms={hour_ms}"]).gone_after_ms == hour_ms
    with pytest.raises(SettingError, match=rf">= {hour_ms} - at `\$.gone_after_ms`"):
        load([f"--gone-after-ms={hour_ms - 1}"])
