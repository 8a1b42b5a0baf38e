"""The sets a student is judged on: what each one is (an entry), where a copy lies, and its pictures with their labels."""

from toolkit.data.benchmarks.entry import Entry, entries, entry_of
from toolkit.data.benchmarks.find import open_folder, open_set
from toolkit.data.benchmarks.split import Split

__all__ = ["Entry", "Split", "entries", "entry_of", "open_folder", "open_set"]
