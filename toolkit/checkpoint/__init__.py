"""Checkpoints: copied to host memory, written aside, hashed, renamed; the newest complete one is found by itself."""

from toolkit.checkpoint.files import STATE, complaint, folder_of, newest, step_of, steps_saved
from toolkit.checkpoint.progress import Progress
from toolkit.checkpoint.resume import resume
from toolkit.checkpoint.saver import Saver

__all__ = ["STATE", "Progress", "Saver", "complaint", "folder_of", "newest", "resume", "step_of", "steps_saved"]
