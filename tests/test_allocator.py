"""What a step frees serves the next one: no page of it is asked from the system again."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource, sys
from toolkit.allocator import keep_freed_memory
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    place = library.malloc(256 << 20)
    ctypes.memset(place, 1, 256 << 20)
    library.free(place)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, **more: str) -> int:
    """Page faults of the third buffer of 256 MiB, 65,536 pages."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("MALLOC_") and name != "GLIBC_TUNABLES"
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], env=kept | more, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or "glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="needs glibc"
)
def test_freed_memory_is_kept_unless_the_user_has_said_how() -> None:
    """A buffer that the C library maps anew costs a fault per page; huge pages would be hundreds."""
    assert faults("kept") < 100
    assert faults("as it is") > 100 and faults("kept", MALLOC_ARENA_MAX="2") > 100
