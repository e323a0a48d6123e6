"""What every process has: here, logs that do not repeat themselves."""

import logging

from collector.process import Seldom


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
