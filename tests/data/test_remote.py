"""Shards over http and S3: the same samples as on disk, fetched once, bounded, and whole or not at all."""

import hashlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from data.site import Site

from toolkit import config
from toolkit.config import Augmentation, Batch, Preprocess
from toolkit.config.validate import wrong_numbers
from toolkit.data import transfer
from toolkit.data.build import Streams, build_sources, check_shards
from toolkit.data.cache import ShardCache, cache_of
from toolkit.data.remote import RemoteShard, split_pattern
from toolkit.data.shards import INDEX_NAME, count_samples, expand_shards, local_file, scan_shard
from toolkit.data.store import EmbeddingStore, stem_of
from toolkit.data.stored import stored_for, stored_shards
from toolkit.errors import DataError

MakeShards = Callable[..., Path]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of tests, not of clusters."""
    monkeypatch.setattr(transfer, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(transfer, "STALL_SECONDS", 0.5)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """What the test writes under its folder, on the web."""
    found = Site(tmp_path)
    yield found
    found.close()


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    """Empty."""
    return ShardCache(tmp_path / "cache")


def copies(cache: ShardCache) -> list[str]:
    """Names of the shards in the cache."""
    return sorted(path.name.split("-", 1)[1] for path in cache.folder.glob("*.tar"))


def of(site: Site, cache: ShardCache, path: str) -> list[RemoteShard]:
    """Shards of a pattern on the site."""
    found = expand_shards(f"{site.url}/{path}", asked_by="data.images", cache=cache)
    assert all(isinstance(shard, RemoteShard) for shard in found)
    return [shard for shard in found if isinstance(shard, RemoteShard)]


def test_samples_are_those_on_disk(site: Site, cache: ShardCache, make_shards: MakeShards) -> None:
    """Keys, offsets and bytes of each sample; nothing is fetched before it is read."""
    folder = make_shards("a", 7)
    shards = of(site, cache, "a/{00000..00001}.tar")
    assert count_samples(shards) == [4, 3] and [shard.name for shard in shards] == ["00000.tar", "00001.tar"]
    assert not cache.folder.exists() and site.gets(f"/a/{INDEX_NAME}") == 1
    for shard in shards:
        here, there = scan_shard(folder / shard.name), scan_shard(shard)
        assert there.path == shard and there.keys == here.keys and np.array_equal(there.offsets, here.offsets)
        for row, extension in itertools.product(range(here.count), ("png", "txt")):
            assert there.read(row, extension) == here.read(row, extension)
    assert copies(cache) == ["00000.tar", "00001.tar"] and site.gets("/a/00000.tar") == 1


def test_local_and_remote_in_one_pattern(site: Site, cache: ShardCache, make_shards: MakeShards) -> None:
    """Joined by `::`, which is not the `::` of an IPv6 address; a folder by its index."""
    a, b = make_shards("a", 9), make_shards("b", 5)
    found = expand_shards(f"{a}::{site.url}/b/::{site.url}/a/00002.tar", asked_by="x", cache=cache)
    remote = [f"{site.url}/b/00000.tar", f"{site.url}/b/00001.tar", f"{site.url}/a/00002.tar"]
    assert found[:3] == [a / f"{n:05d}.tar" for n in range(3)]
    assert [shard.url for shard in found[3:] if isinstance(shard, RemoteShard)] == remote
    assert count_samples(found) == [4, 4, 1, 4, 1, 1] and found[3].name == (b / "00000.tar").name
    assert split_pattern("http://[::1]:80/{0..1}.tar::[a]::b") == ["http://[::1]:80/{0..1}.tar", "[a]", "b"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("pipe:curl -s http://x/00000.tar", r"data\.images: shards are not read through pipe:.*commands are never run"),
        ("ftp://x/{0..1}.tar", r"not read through ftp: \(found ftp://x/\{0\.\.1\}\.tar\); known are http, https, s3"),
        ("file:///x/0.tar", r"not read through file:.*paths without a scheme"),
        ("a.tar::pipe:cat b.tar", r"not read through pipe:"),
        ("simplecache::s3://x/0.tar", r"simplecache:: is a chained URL of fsspec, which is not supported"),
    ],
)
def test_other_schemes_are_refused(pattern: str, message: str) -> None:
    """Above all those that would run a shell."""
    with pytest.raises(DataError, match=message):
        expand_shards(pattern, asked_by="data.images")


def test_a_name_in_two_folders(site: Site, cache: ShardCache, make_shards: MakeShards) -> None:
    """The whole URL is the key, its query too; the store's names differ as well and do not depend on the cache."""
    make_shards("a", 4)
    make_shards("b", 4, broken={0: {"txt": b"another"}})
    urls = [f"{site.url}/a/00000.tar", f"{site.url}/b/00000.tar", f"{site.url}/b/00000.tar?version=2"]
    shards = [RemoteShard(url, cache) for url in urls]
    assert [scan_shard(shard).read(0, "txt") for shard in shards] == [b"sentence 0", b"another", b"another"]
    assert copies(cache) == ["00000.tar"] * 3 and len({stem_of(shard) for shard in shards}) == 3
    elsewhere = RemoteShard(urls[0], ShardCache(cache.folder / "elsewhere"))
    assert stem_of(elsewhere) == stem_of(shards[0]) and stem_of(elsewhere).startswith("00000-")
    assert elsewhere == shards[0]


def test_embeddings_of_remote_shards(site: Site, cache: ShardCache, make_shards: MakeShards) -> None:
    """Stored under the URL, found again whatever the cache; nothing is fetched for it."""
    make_shards("a", 8)
    store = EmbeddingStore(cache.folder.parent / "store", {"teacher": "t"})
    store.write_identity()
    rows = torch.nn.functional.normalize(torch.arange(1.0, 9.0).reshape(4, 2), dim=-1)
    for shard in of(site, cache, "a/"):
        store.write(shard, ("a", "b", "c", "d"), rows)
    again = RemoteShard(f"{site.url}/a/00001.tar", ShardCache(cache.folder / "elsewhere"))
    assert store.is_complete(again, 4) and torch.equal(store.read(again, ("a", "b", "c", "d"), 2).features, rows[2])
    found = stored_for(store.folder, f"{site.url}/a/{{00000..00001}}.tar", asked_by="--shards")
    assert [shard.path for shard in found] == of(site, cache, "a/") and not cache.folder.exists()
    assert [shard.path for shard in stored_shards(store.folder)] == of(site, cache, "a/")


def test_secrets_of_a_signed_url_are_not_shown(
    site: Site, cache: ShardCache, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither in messages nor in the cache."""
    url = f"{site.url}/a/00000.tar?signature=hunter2".replace("//", "//me:hunter3@")
    site.tricks["/a/00000.tar"] = ["500"] * 2
    with pytest.raises(DataError) as caught:
        local_file(RemoteShard(url, cache))
    said = f"{caught.value} {capsys.readouterr().out} {RemoteShard(url, cache)} {list(cache.folder.iterdir())}"
    assert "00000.tar" in said and "hunter" not in said


def test_least_recently_used_leave_first(site: Site, tmp_path: Path, make_shards: MakeShards) -> None:
    """The bound holds at every moment, also for what was open and is removed; that is fetched again when it is needed again."""
    folder = make_shards("a", 16)
    size = max(path.stat().st_size for path in folder.glob("*.tar"))
    cache = ShardCache(tmp_path / "cache", 2 * size)
    shards = of(site, cache, "a/{00000..00003}.tar")
    first = scan_shard(shards[0])
    assert first.read(1, "txt") == b"sentence 1"
    local_file(shards[1])
    local_file(shards[0])  # used again, so that the second is now the oldest
    local_file(shards[2])
    assert copies(cache) == ["00000.tar", "00002.tar"]
    local_file(shards[3])
    assert copies(cache) == ["00002.tar", "00003.tar"]
    if Path("/proc/self/fd").exists():  # a removed file takes its disk as long as it is open
        held = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        assert not [path for path in held if path.startswith(str(cache.folder)) and path.endswith("(deleted)")]
    assert first.read(3, "txt") == b"sentence 3" and site.gets("/a/00000.tar") == 2
    assert scan_shard(shards[0]).stamp == first.stamp
    assert sum(path.stat().st_size for path in cache.folder.glob("*.tar")) <= cache.max_bytes
    site.tricks["/a/00001.tar"] = ["unsized"]
    assert local_file(RemoteShard(shards[1].url, cache)).stat().st_size <= size  # no index, no length: room as it grows
    site.tricks["/a/00000.tar"] = ["unsized"]
    with pytest.raises(DataError, match=r"is larger than the whole cache"):
        local_file(RemoteShard(shards[0].url, ShardCache(tmp_path / "tiny", size // 2)))
    small = ShardCache(tmp_path / "small", size - 1)
    with pytest.raises(
        DataError, match=rf"00000\.tar \({size} bytes\) is larger than the whole cache .*cache_gigabytes"
    ):
        local_file(RemoteShard(shards[0].url, small))
    assert list(small.folder.glob(".*")) == []


def test_what_a_killed_process_left_makes_room(site: Site, cache: ShardCache, make_shards: MakeShards) -> None:
    """A half file whose lock nobody holds is removed."""
    size = (make_shards("a", 4) / "00000.tar").stat().st_size
    cache.folder.mkdir()
    left = cache.folder / f".{'0' * 64}-x.tar.part"
    with left.open("wb") as file:
        file.truncate(size)
    local_file(of(site, ShardCache(cache.folder, size), "a/00000.tar")[0])
    assert copies(cache) == ["00000.tar"] and not left.exists()


FETCH = """
import sys
from pathlib import Path
from toolkit.data.cache import ShardCache
url, folder, most = sys.argv[1:]
print(ShardCache(Path(folder), int(most)).get(url).stat().st_size)
"""


def test_processes_that_want_one_shard_fetch_it_once(site: Site, cache: ShardCache, make_shards: MakeShards) -> None:
    """The others wait for it; a second shard goes beside it, into room that is shared."""
    folder = make_shards("a", 8)
    sizes = [(folder / f"0000{k}.tar").stat().st_size for k in range(2)]
    site.tricks = {f"/a/0000{k}.tar": ["slow"] for k in range(2)}
    wanted = [f"{site.url}/a/0000{k}.tar" for k in (0, 0, 0, 1)]
    command = [sys.executable, "-c", FETCH]
    started = [
        subprocess.Popen([*command, url, str(cache.folder), str(sum(sizes))], stdout=subprocess.PIPE, text=True)
        for url in wanted
    ]
    found = [int(process.communicate(timeout=120)[0]) for process in started]
    assert found == [sizes[0]] * 3 + [sizes[1]] and site.gets("/a/00000.tar") == site.gets("/a/00001.tar") == 1
    assert copies(cache) == ["00000.tar", "00001.tar"]


@pytest.mark.parametrize(
    ("tricks", "gets", "message"),
    [
        (["500", "503"], 3, ""),
        (["429", "cut"], 3, ""),
        (["short"], 2, ""),
        (["flip"], 2, ""),
        (["stall"], 2, ""),
        (["unsized"], 1, ""),
        (["404"], 1, r"00000\.tar does not exist on its server; correct the URL"),
        (["403"], 1, r"00000\.tar: the server refuses access \(HTTP status 403 Forbidden\)"),
        (["400"], 1, r"the server answers HTTP status 400 Bad Request"),
        (["500"] * 9, 4, r"could not be read: 4 attempts failed, the last with HTTP status 500 .*; look at the server"),
        (["cut"] * 9, 4, r"4 attempts failed, the last with ClientPayloadError"),
        (["stall"] * 9, 4, r"4 attempts failed, the last with no answer in time"),
        (["short"] * 9, 2, r"the server has \d+ bytes, index\.json says \d+, twice; upload the shard again"),
        (["flip"] * 9, 2, r"found the sha256 \w+\.\.\., index\.json says \w+\.\.\., twice; upload the shard again"),
    ],
)
def test_a_server_that_fails(
    tricks: list[str],
    gets: int,
    message: str,
    site: Site,
    cache: ShardCache,
    make_shards: MakeShards,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Either the whole shard or an error that says what was found; tried again where that may help, each with a line."""
    path = make_shards("a", 4) / "00000.tar"
    add_hashes(path.parent)
    shard = of(site, cache, "a/00000.tar")[0]
    site.tricks["/a/00000.tar"] = list(tricks)
    start = time.monotonic()
    if message:
        with pytest.raises(DataError, match=message):
            local_file(shard)
        assert list(cache.folder.glob("*.tar")) == []
    else:
        assert local_file(shard).read_bytes() == path.read_bytes()
    assert time.monotonic() - start < 20 and site.gets("/a/00000.tar") == gets
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == gets - 1 and all(line.startswith(f"{site.url}/a/00000.tar: ") for line in lines)
    assert list(cache.folder.glob(".*")) == []


def add_hashes(folder: Path) -> None:
    """As `dime shards` writes them."""
    index = json.loads((folder / INDEX_NAME).read_text())
    for entry in index["shards"]:
        entry["sha256"] = hashlib.sha256((folder / entry["name"]).read_bytes()).hexdigest()
    (folder / INDEX_NAME).write_text(json.dumps(index))


def test_a_new_index_makes_a_copy_stale(site: Site, cache: ShardCache, make_shards: MakeShards) -> None:
    """Shards made anew under the same URL; without an index, the size on the server tells."""
    make_shards("a", 4)
    local_file(of(site, cache, "a/00000.tar")[0])
    folder = make_shards("a", 4, broken={0: {"txt": b"of the same length"[:10]}})
    add_hashes(folder)
    assert scan_shard(of(site, cache, "a/00000.tar")[0]).read(0, "txt") == b"of the sam"
    (folder / INDEX_NAME).unlink()
    assert count_samples(of(site, cache, "a/00000.tar")) == [4]
    make_shards("a", 300, per_shard=300)
    (folder / INDEX_NAME).unlink()
    assert count_samples(of(site, cache, "a/00000.tar")) == [300]


def test_other_content_while_it_is_read(site: Site, tmp_path: Path, make_shards: MakeShards) -> None:
    """Offsets of one content are never used in another."""
    folder = make_shards("a", 8)
    cache = ShardCache(tmp_path / "cache", (folder / "00000.tar").stat().st_size)
    shards = [RemoteShard(f"{site.url}/a/0000{k}.tar", cache) for k in range(2)]
    scanned = scan_shard(shards[0])
    make_shards("a", 8, broken={0: {"txt": b"another"}})
    local_file(shards[1])
    with pytest.raises(DataError, match=r"00000\.tar has other content on its server than when this run began"):
        scanned.read(0, "txt")


def test_counting_without_an_index(
    site: Site, cache: ShardCache, make_shards: MakeShards, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each shard is fetched once, and said; counts are kept when the copies are gone."""
    folder = make_shards("a", 11)
    (folder / INDEX_NAME).unlink()
    shards = of(site, cache, "a/{00000..00002}.tar")
    assert count_samples([*shards, shards[0]]) == [4, 4, 3, 4]
    assert "counting 3 remote shards that no index.json lists, from http://" in capsys.readouterr().out
    for path in cache.folder.glob("*.tar"):
        path.unlink()
    assert count_samples(of(site, cache, "a/{00000..00002}.tar")) == [4, 4, 3]
    assert copies(cache) == [] and "counting" not in capsys.readouterr().out


def test_the_start_of_a_run_fetches_nothing(site: Site, tmp_path: Path, make_shards: MakeShards) -> None:
    """With an index one request; without, a few looks; a missing shard is named with its setting."""
    folder = make_shards("a", 40)
    data = config.Data(images=f"{site.url}/a/{{00000..00009}}.tar", cache_dir=str(tmp_path / "cache"))
    check_shards(config.Run(data=data))
    assert dict(site.seen) == {("GET", f"/a/{INDEX_NAME}"): 1}
    (folder / INDEX_NAME).unlink()
    check_shards(config.Run(data=data))
    looks = [path for (method, path), _ in site.seen.items() if method == "HEAD"]
    assert len(looks) == 6 and {"/a/00000.tar", "/a/00009.tar"} < set(looks) and not (tmp_path / "cache").exists()
    (folder / "00009.tar").unlink()
    with pytest.raises(
        DataError, match=r"data\.images=http.*: 1 of the 6 shards .* \(of 10\) are not .*00009\.tar does"
    ):
        check_shards(config.Run(data=data))
    with pytest.raises(DataError, match=r"data\.images=http://.*/a/: the folder has no index\.json"):
        of(site, cache_of(data), "a/")


def test_settings() -> None:
    """The default place, and a bound that holds nothing."""
    assert cache_of(config.Data()) == ShardCache() and ShardCache().max_bytes == 50 * 10**9
    assert cache_of(config.Data(cache_dir="~/x", cache_gigabytes=0.5)) == ShardCache(Path.home() / "x", 5 * 10**8)
    problems = list(wrong_numbers(config.Run(data=config.Data(cache_gigabytes=0.0))))
    assert any("data.cache_gigabytes (0.0) must be above 0" in problem for problem in problems)


@pytest.mark.parametrize("what", ["<html>", "torn"])
def test_what_is_no_shard(what: str, site: Site, cache: ShardCache, make_shards: MakeShards) -> None:
    """A page that says 'not found' with status 200; the URL is named, and the copy."""
    path = make_shards("a", 4, broken={1: {"png": bytes(9999)}}) / "00000.tar"
    path.write_bytes({"<html>": b"<html>" * 200, "torn": path.read_bytes()[:9000]}[what])
    (path.parent / INDEX_NAME).unlink()
    with pytest.raises(
        DataError, match=r"^http://[^ ]*/a/00000\.tar: the shard is .*; its local copy is .*-00000\.tar"
    ):
        scan_shard(of(site, cache, "a/00000.tar")[0])
    (path.parent / INDEX_NAME).write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"^http://.*/a/index\.json is not an index of shards"):
        of(site, cache, "a/00000.tar")


def test_a_cache_that_cannot_be_written(site: Site, tmp_path: Path, make_shards: MakeShards) -> None:
    """The setting is named."""
    make_shards("a", 4)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"the cache of shards .*/file cannot be written .*set data\.cache_dir"):
        local_file(of(site, ShardCache(tmp_path / "file"), "a/00000.tar")[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_stream_is_the_same(workers: int, site: Site, tmp_path: Path, make_shards: MakeShards) -> None:
    """Keys and pixels of two passes, with a cache that holds two of five shards."""
    folder = make_shards("a", 20)
    size = max(path.stat().st_size for path in folder.glob("*.tar"))
    batch = Batch(
        world_size=1,
        batch_size_per_gpu=5,
        text_batch_size_per_gpu=5,
        global_images=5,
        global_texts=5,
        grad_accum_steps=1,
    )
    taken = []
    for place in (str(folder), f"{site.url}/a/{{00000..00004}}.tar"):
        data = config.Data(
            images=place,
            augmentation=Augmentation(),
            shuffle_shards=2,
            cache_dir=str(tmp_path / "cache"),
            cache_gigabytes=2.5 * size / 10**9,
        )
        sources = build_sources(data, batch, student=Preprocess(image_size=8), teachers={}, tokenizers={}, seed=3)
        streams = Streams(sources, rank=0, world=1, first_step=0, workers=workers)
        taken.append([streams.next()["images"] for _ in range(8)])
        del streams
    for here, there in zip(*taken, strict=True):
        assert here.keys == there.keys
        assert torch.equal(here.tensors["student_images"], there.tensors["student_images"])
    assert len(list((tmp_path / "cache").glob("*.tar"))) <= 2


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """`s3://shards` on a server of moto in a thread."""
    for module in ("moto.server", "s3fs", "boto3"):
        pytest.importorskip(module, reason=f"{module} is not installed; pip install -e '.[dev]'")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    boto3.client("s3").create_bucket(Bucket="shards")
    yield "s3://shards"
    server.stop()


def test_s3(bucket: str, cache: ShardCache, make_shards: MakeShards) -> None:
    """Listed by its index, read, and refused where it is absent; more than one range per shard."""
    import boto3

    noise = np.random.default_rng(0).bytes(transfer.BLOCK)
    folder = make_shards("a", 7, broken={0: {"bin": noise}})
    add_hashes(folder)
    client = boto3.client("s3")
    for path in folder.iterdir():
        client.upload_file(str(path), "shards", f"deep/a/{path.name}")
    shards = expand_shards(f"{bucket}/deep/a/", asked_by="data.images", cache=cache)
    assert shards == expand_shards(f"{bucket}/deep/a/{{00000..00001}}.tar", asked_by="data.images", cache=cache)
    assert count_samples(shards) == [4, 3] and not cache.folder.exists()
    here, there = scan_shard(folder / "00000.tar"), scan_shard(shards[0])
    assert there.keys == here.keys and there.read(0, "bin") == noise and there.read(3, "png") == here.read(3, "png")
    with pytest.raises(DataError, match=r"1 of the 1 shards .*s3://shards/deep/b/0\.tar does not exist on its server"):
        expand_shards(f"{bucket}/deep/b/0.tar", asked_by="data.images", cache=cache)
    assert os.listdir(cache.folder / "notes")


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"s3fs, which is not installed; pip install 'dime-fm-toolkit\[s3\]'"):
        expand_shards("s3://bucket/{0..3}.tar", asked_by="data.images")
