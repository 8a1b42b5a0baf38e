"""Checkpoints: copied to host memory, written aside, hashed, renamed; the newest complete one is found by itself.

`saver` and `resume` are imported by their own names: they need DeepSpeed, looking at folders does not.
"""

from toolkit.checkpoint.files import STATE, complaint, folder_of, newest, step_of, steps_saved
from toolkit.checkpoint.progress import Progress

__all__ = ["STATE", "Progress", "complaint", "folder_of", "newest", "step_of", "steps_saved"]
