"""Bytes over the network through fsspec: time limits, a few attempts, and errors that name the URL."""

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import fsspec

from toolkit.errors import DataError, ToolkitError

T = TypeVar("T")

PACKAGES = {
    "http": ("aiohttp", "aiohttp"),
    "https": ("aiohttp", "aiohttp"),
    "s3": ("s3fs", "'dime-fm-toolkit[s3]'"),
    "gs": ("gcsfs", "gcsfs"),
    "az": ("adlfs", "adlfs"),
    "abfs": ("adlfs", "adlfs"),
    "hf": ("huggingface_hub", "huggingface_hub"),
}
"""By scheme: the module that fsspec needs, and what to hand to pip for it. No other scheme is opened."""
ATTEMPTS = 4
FIRST_WAIT_SECONDS = 1.0
"""Before the second attempt; doubles for each further one."""
CONNECT_SECONDS = 20.0
STALL_SECONDS = 30.0
"""Without a byte, after which an attempt is given up."""
SLOWEST_BYTES_PER_SECOND = 20_000
"""A transfer that stays below it is given up too, so that a server that drips cannot hold a run for days."""
CHUNK = 1 << 20
BLOCK = 16 << 20
"""Bytes per request where a store is read in ranges."""


class Absent(DataError):
    """The server does not give this URL: it is not there, or not for us."""


class Mismatch(Exception):
    """What came is not what was announced; asking again at once is up to the caller."""


def shown(url: str) -> str:
    """The URL as messages and files may show it: without password and query, which in signed URLs are secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def scheme_of(url: str) -> str:
    """`https` of `https://...`."""
    return url.partition("://")[0].lower()


def filesystem(url: str) -> Any:
    """The fsspec file system of a URL; raises DataError when its package is not installed."""
    scheme = scheme_of(url)
    module, package = PACKAGES[scheme]
    if importlib.util.find_spec(module) is None:
        raise DataError(f"{shown(url)} needs the package {module}, which is not installed; pip install {package}")
    options: dict[str, Any] = {}
    if scheme in ("http", "https"):
        import aiohttp

        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS)
        # trust_env: proxies and .netrc; identity: the announced size is then that of the file
        options = {
            "client_kwargs": {"timeout": limits, "trust_env": True, "headers": {"Accept-Encoding": "identity"}},
        }
    elif scheme == "s3":
        options = {"config_kwargs": {"connect_timeout": CONNECT_SECONDS, "read_timeout": STALL_SECONDS}}
    return fsspec.filesystem(scheme, **options)


def size_of(url: str) -> int | None:
    """Bytes as the server says, without fetching them; None where it does not say. Raises Absent, DataError."""

    def ask() -> int | None:
        size = filesystem(url).info(url).get("size")
        return None if size is None else int(size)

    return with_attempts(url, ask)


def read_small(url: str) -> bytes | None:
    """A small file whole, None where it is absent; raises DataError when the server cannot be reached."""

    def read() -> bytes:
        with incoming(url) as (_, chunks):
            return b"".join(chunks)

    try:
        return with_attempts(url, read)
    except Absent:
        return None


@contextmanager
def incoming(url: str) -> Iterator[tuple[int | None, Iterator[bytes]]]:
    """(bytes announced, chunks) of one attempt; raises whatever the library below raises."""
    system = filesystem(url)
    if scheme_of(url) in ("http", "https"):
        # block_size=0: one streaming GET; a size that is given spares a HEAD before it
        file = system.open(url, block_size=0, size=1)
        plain = file.r.headers.get("Content-Encoding", "identity") == "identity"
        length = file.r.headers.get("Content-Length") if plain else None
    else:
        file = system.open(url, block_size=BLOCK, cache_type="readahead")
        length = file.size
    try:
        yield None if length is None else int(length), chunks_of(file)
    finally:
        file.close()


def chunks_of(file: Any) -> Iterator[bytes]:
    """Up to a MiB at a time; raises TimeoutError when all in all they come too slowly."""
    start, done = time.monotonic(), 0
    while data := file.read(CHUNK):
        yield data
        done += len(data)
        passed = time.monotonic() - start
        if passed > 2 * STALL_SECONDS and done < passed * SLOWEST_BYTES_PER_SECOND:
            raise TimeoutError(f"{done} bytes in {passed:.0f} s")


def with_attempts(url: str, action: Callable[[], T]) -> T:
    """What `action` returns; errors that may pass are tried again, each with a line that says so.

    Raises Absent or DataError with the URL, what was found and what to do.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except (ToolkitError, Mismatch):
            raise
        except Exception as error:  # each library below has exceptions of its own
            cause = cause_of(error)
            complain_if_hopeless(url, cause)
            if attempt == ATTEMPTS:
                raise DataError(
                    f"{shown(url)} could not be read: {ATTEMPTS} attempts failed, the last with {described(cause)}; look "
                    "at the server and the network, then run the same command again"
                ) from error
            wait = FIRST_WAIT_SECONDS * 2 ** (attempt - 1)
            print(
                f"{shown(url)}: attempt {attempt} of {ATTEMPTS} failed ({described(cause)}), the next in {wait:g} s",
                flush=True,
            )
            time.sleep(wait)
    raise AssertionError("unreachable")


def cause_of(error: Exception) -> BaseException:
    """fsspec's HTTP says FileNotFoundError for any failed look at a URL; this is what was behind it."""
    cause = error.__cause__
    library = type(cause).__module__.partition(".")[0]
    behind = cause is not None and (library == "aiohttp" or isinstance(cause, TimeoutError))
    return cause if cause is not None and behind and isinstance(error, FileNotFoundError) else error


def complain_if_hopeless(url: str, error: BaseException) -> None:
    """Raise where trying again cannot help."""
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        raise Absent(f"{shown(url)} does not exist on its server; correct the URL or upload the file") from error
    if isinstance(error, PermissionError) or status in (401, 403):
        raise Absent(
            f"{shown(url)}: the server refuses access ({described(error)}); correct the URL, or give credentials "
            "(S3: as for the aws command; http: a .netrc or a signed URL)"
        ) from error
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"):
        raise DataError(
            f"{shown(url)}: no credentials were found ({error}); set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or FSSPEC_S3='{\"anon\": true}' for a public bucket"
        ) from error
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429):
        raise DataError(f"{shown(url)}: the server answers {described(error)}; correct the URL") from error


def described(error: BaseException) -> str:
    """In one line, without the URL and its secrets."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return f"HTTP status {status} {getattr(error, 'message', '')}".strip()
    if isinstance(error, TimeoutError):
        return f"no answer in time ({error})" if str(error) else "no answer in time"
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first and "?" not in first else type(error).__name__
