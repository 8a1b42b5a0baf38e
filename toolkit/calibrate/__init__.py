"""How sharp the teacher's targets are on a sample of the user's own data, and temperatures that make them alike."""

from toolkit.calibrate.command import calibrate_run

__all__ = ["calibrate_run"]
