"""Files of the cache of shards that this process holds open: a removed file takes its disk until it is closed everywhere."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from io import FileIO

MOST = 128


class Handles:
    """The most recently used open files. One that leaves is closed when nobody reads from it any more."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._open: OrderedDict[Hashable, FileIO] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, opening: Callable[[], FileIO]) -> FileIO:
        """What is open under `key`, else what `opening` opens; then those whose file was removed are let go first."""
        with self._lock:
            found = self._open.get(key)
            if found is not None:
                self._open.move_to_end(key)
                return found
        self.drop_removed()
        file = opening()
        with self._lock:
            self._open[key] = file
            while len(self._open) > self.most:
                self._open.popitem(last=False)
        return file

    def drop_removed(self) -> None:
        """Let go of files that no longer have a name."""
        with self._lock:
            for key in [key for key, file in self._open.items() if not has_name(file)]:
                del self._open[key]


def has_name(file: FileIO) -> bool:
    """Is it still in its folder."""
    try:
        return os.fstat(file.fileno()).st_nlink > 0
    except OSError:  # of a network disk that has forgotten it
        return False


OPEN = Handles()
"""Of this process."""
