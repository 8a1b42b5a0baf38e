"""How fast one core feeds a run, and how many cores a GPU needs."""

from toolkit.profile.command import profile_data

__all__ = ["profile_data"]
