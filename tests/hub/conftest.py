"""Fixtures of the hub's tests."""

from hub_world import no_sleep, world

__all__ = ["no_sleep", "world"]
