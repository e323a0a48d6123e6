"""How often a property is tried: the profiles of Hypothesis, and what a test asks for itself.

A test asks for a number of examples, in the profile ``whole``; in ``unit`` it gets a share of it.
No profile has a deadline: how fast an example is depends on what else the machine does.
"""

from typing import Any

from hypothesis import HealthCheck, settings

WHOLE, UNIT = "whole", "unit"
_OF_WHOLE, _OF_UNIT = 100, 15  # examples of a test that asks for no number
_FEWEST = 5

settings.register_profile(
    WHOLE,
    max_examples=_OF_WHOLE,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(UNIT, settings.get_profile(WHOLE), max_examples=_OF_UNIT)


def examples(number: int, **more: Any) -> settings:
    """Return the settings of a test that is to be tried with ``number`` examples, or a share."""
    assert settings.default is not None
    share = number * settings.default.max_examples // _OF_WHOLE
    return settings(max_examples=min(number, max(share, _FEWEST)), **more)
