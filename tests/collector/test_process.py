"""What every process has: settings in parts, and logs that do not repeat themselves."""

import logging
from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from collector.errors import SettingError
from collector.process import Seldom, load_settings, setting


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
