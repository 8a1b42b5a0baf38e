"""Weights from elsewhere: a file or folder of another project -> a folder that is a student and a teacher here."""

from toolkit.imports.command import Wishes, import_weights

__all__ = ["Wishes", "import_weights"]
