"""Fixtures of the schedule tests."""

from tests.support.timetable import fake_clock, timetable

__all__ = ["fake_clock", "timetable"]
