"""Small valid inputs, and random damage to them: each case is decided by its own generator alone."""

import functools
import io
import json
import pickle
import random
import struct
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from toolkit.data.store_file import DTYPES, write_rows

BLOCK = 512
WORDS = [
    b"a dog on a beach",
    "caf\u00e9 \u65e5\u672c".encode(),
    b"\xef\xbb\xbfwith a mark",
    b"x",
    b"latin caf\xe9",
    b"two\nlines",
]
NUMBERS = [
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"9" * 400,
    b"[[]]",
    b"true",
    b'"7"',
    b"0",
    b"1e3",
    b"-0.5",
    b"1000000000000000000",
]
NAMES = [
    b"../../out.txt",
    b"/etc/cron.d/x.txt",
    b"a\nb.txt",
    b"\xff\xfe.jpg",
    b".hidden",
    b"none",
    b"img.v2.txt",
    b"0001.jpg",
    b"a.pyd",
]
SIZES = [
    b"\xff" * 12,
    b"\x80" + b"\xff" * 11,
    b"\x80" + bytes(7) + b"\x7f" * 4,
    b"77777777777\0",
    b"-0000000001\0",
    b"\xff" * 11 + b"\x00",
]


class Trap:
    """Unpickled it would leave a file behind."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (Path("sprung"),)


@functools.cache
def pictures() -> dict[str, bytes]:
    """One of each kind, a few hundred bytes each."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    plain = Image.fromarray(pixels)
    grey = plain.convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: list[tuple[str, Image.Image, str, dict[str, object]]] = [
        ("png", plain, "PNG", {}),
        ("png", plain.convert("P"), "PNG", {"transparency": 3}),
        ("png", plain.convert("RGBA"), "PNG", {"exif": exif}),
        ("png", Image.fromarray(pixels[..., 0].astype(np.uint16) * 200), "PNG", {}),
        ("png", plain, "PNG", {"save_all": True, "append_images": [grey.convert("RGB")]}),
        ("jpg", plain, "JPEG", {"exif": exif}),
        ("jpg", plain, "JPEG", {"progressive": True}),
        ("jpg", plain.convert("CMYK"), "JPEG", {}),
        ("jpg", grey, "JPEG", {}),
        ("gif", plain, "GIF", {"save_all": True, "append_images": [grey]}),
        ("webp", plain, "WEBP", {"exif": exif}),
        ("webp", plain, "WEBP", {"save_all": True, "append_images": [grey], "lossless": True}),
        ("bmp", plain, "BMP", {}),
        ("tif", plain, "TIFF", {"compression": "tiff_lzw"}),
        ("tif", grey, "TIFF", {"compression": "tiff_deflate", "exif": exif}),
        ("ppm", plain, "PPM", {}),
    ]
    found = {}
    for number, (extension, image, kind, how) in enumerate(kinds):
        buffer = io.BytesIO()
        image.save(buffer, kind, **how)
        found[f"{number}.{extension}"] = buffer.getvalue()
    return found


def picture(rng: random.Random) -> bytes:
    """A damaged one, now and then a whole one."""
    return damaged(rng, rng.choice(list(pictures().values())))


def sentence(rng: random.Random) -> bytes:
    """Damaged, or repeated until it is too long."""
    data = rng.choice(WORDS)
    return data * rng.choice([1, 1, 1, 300, 5000, 100_000]) if rng.random() < 0.3 else damaged(rng, data)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Up to three of: flips, overwritten bytes, a cut, a splice, NULs in between, a repeated or missing part."""
    found = bytearray(data)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        place = rng.randrange(len(found) + 1)
        part = slice(place, place + rng.choice([1, 2, 4, 16, 200]))
        how = rng.randrange(8)
        if how == 0:
            for _ in range(rng.choice([1, 3, 30])):
                if found:
                    found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
        elif how == 1:
            found[part] = rng.randbytes(len(found[part]))
        elif how == 2:
            del found[place:]
        elif how == 3:
            other = rng.choice(list(pictures().values()))
            found[place:] = other[rng.randrange(len(other)) :]
        elif how == 4:
            found[place:place] = bytes(rng.choice([1, 7, 512]))
        elif how == 5:
            found[place:place] = found[part]
        elif how == 6:
            del found[part]
        else:  # a length somewhere
            found[part] = rng.choice([b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(4), struct.pack("<I", 1 << 30)])
    return bytes(found)


def header(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    """Of one member, without damage."""
    found = bytearray(tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT))
    found[:100] = name[:100].ljust(100, b"\0")
    found[124:136] = b"%011o\0" % size
    found[156:157] = kind
    return mended(found)


def mended(found: bytearray) -> bytes:
    """With the right checksum."""
    found[148:156] = b" " * 8
    found[148:156] = b"%06o\0 " % sum(found)
    return bytes(found)


def damaged_header(rng: random.Random, name: bytes, size: int, kind: bytes = b"0") -> bytes:
    """One in thirty is overwritten somewhere, its checksum mostly mended afterwards."""
    found = bytearray(header(name, size, kind))
    if rng.random() >= 0.033:
        return bytes(found)
    how = rng.randrange(5)
    if how == 0:
        found[124:136] = rng.choice(SIZES)
    elif how == 1:
        found[156:157] = rng.choice([b"x", b"g", b"L", b"K", b"S", b"1", b"2", b"5", b"7", b"V", b"\0", b"\xff", b"X"])
    elif how == 2:
        found[:100] = rng.choice(NAMES).ljust(100, b"\0")
    elif how == 3:
        found[345 : 345 + 20] = rng.randbytes(20)
    else:
        found[rng.randrange(BLOCK)] = rng.randrange(256)
    return mended(found) if rng.random() < 0.8 else bytes(found)


def extension_header(rng: random.Random) -> bytes:
    """A pax or GNU header, honest or not, before the next member."""
    size = rng.choice([b"-512", b"5", b"0", b"99999999999999", b"x"])
    record = rng.choice(
        [b"path=" + rng.choice(NAMES), b"size=" + size, b"GNU.sparse.size=9", b"GNU.sparse.map=1,x", b"nothing"]
    )
    line = b"%d %s\n" % (rng.choice([len(record) + 3 + len(str(len(record))), 0, 7, 10**9]), record)
    data = rng.choice([line, line * 3, b"1" * 3000, damaged(rng, line), rng.choice(NAMES) * 40])
    return damaged_header(
        rng, b"x", rng.choice([len(data), len(data), 2**31, 0]), rng.choice([b"x", b"g", b"L", b"K"])
    ) + padded(data)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def shard(rng: random.Random) -> bytes:
    """A tar of one to four samples: bodies damaged or swapped, members repeated, missing or strange, then the whole."""
    members: list[tuple[bytes, bytes]] = []
    for number in range(rng.randint(1, 4)):
        key = b"%04d" % number
        name, body = rng.choice(list(pictures().items()))
        members.append((key + b"." + name.partition(".")[2].encode(), picture(rng) if rng.random() < 0.3 else body))
        members.append((key + b".txt", sentence(rng)[:5000] if rng.random() < 0.3 else WORDS[0]))
        if rng.random() < 0.3:
            members.append((key + b".json", damaged(rng, b'{"a": [1, 2]}')))
        if rng.random() < 0.2:
            members.append((key + rng.choice([b".pyd", b".pkl", b".pth", b".pickle"]), pickle.dumps(Trap())))
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        shuffle_members(rng, members)
    parts: list[bytes] = []
    for name, body in members:
        if rng.random() < 0.02:
            parts.append(extension_header(rng))
        parts.append(damaged_header(rng, name, len(body)) + padded(body))
    parts.append(bytes(rng.choice([BLOCK, 2 * BLOCK, 2 * BLOCK, 20 * BLOCK])))
    content = b"".join(parts)
    return damaged(rng, content) if rng.random() < 0.15 else content


def shuffle_members(rng: random.Random, members: list[tuple[bytes, bytes]]) -> None:
    """One member repeated, dropped, moved, renamed, or two bodies swapped."""
    first, second = rng.randrange(len(members)), rng.randrange(len(members))
    how = rng.randrange(5)
    if how == 0:
        members.insert(second, members[first])
    elif how == 1 and len(members) > 1:
        del members[first]
    elif how == 2:
        members.insert(second, members.pop(first))
    elif how == 3:
        members[first] = (rng.choice(NAMES), members[first][1])
    else:
        (a, body), (b, other) = members[first], members[second]
        members[first], members[second] = (a, other), (b, body)


def index(rng: random.Random, names: Sequence[str], sizes: Sequence[int], counts: Sequence[int]) -> bytes:
    """An index.json with a number, a name or any bytes replaced."""
    entries = [
        b'{"name": "%s", "bytes": %d, "samples": %d, "sha256": ""}' % (name.encode(), size, count)
        for name, size, count in zip(names, sizes, counts, strict=True)
    ]
    content = b'{"version": 1, "shards": [%s]}' % b", ".join(entries)
    how = rng.randrange(5)
    old = str(rng.choice([*sizes, *counts])).encode()
    if how == 0:
        return content.replace(b": " + old, b": " + rng.choice(NUMBERS))
    if how == 1:
        name = rng.choice(
            [b"../../etc/passwd", b"/etc/x.tar", b"a\\u0000b.tar", b"\\ud800.tar", b"..", b"other.tar", b""]
        )
        return content.replace(rng.choice(list(names)).encode(), name)
    if how == 2:
        return content.replace(b": " + old, b": %d" % (int(old) + rng.choice([-1, 1, 3])))
    if how == 3:
        return rng.choice(
            [b"[" * 50_000, b"{}", b"[]", b"", b"\xff", b'{"shards": {}}', b'{"shards": [[]]}', b'{"shards": null}']
        )
    return damaged(rng, content)


@functools.cache
def stores() -> list[bytes]:
    """Embeddings of two samples in every type, plain and through crops."""
    import torch

    found = []
    with tempfile.TemporaryDirectory() as folder:
        for stored_as in DTYPES:
            for views in (1, 2):
                rows = torch.nn.functional.normalize(torch.arange(1.0, 1 + 8 * views).view(2, views, 4), dim=-1)
                crops = torch.tensor([0, 0, 6, 5, 1], dtype=torch.int32).expand(2, views, 5) if views == 2 else None
                write_rows(Path(folder) / "x", "00000.tar", "00000.tar", ["0000", "0001"], rows, stored_as, crops)
                found.append((Path(folder) / "x").read_bytes())
    return found


def store(rng: random.Random) -> bytes:
    """A file of a store with its header or its numbers damaged."""
    content = bytearray(rng.choice(stores()))
    end = 8 + int.from_bytes(content[:8], "little")
    how = rng.randrange(6)
    if how == 0:
        content[:8] = rng.choice([bytes(8), b"\xff" * 8, (end + rng.randrange(-9, 9)).to_bytes(8, "little")])
    elif how == 1:
        old = rng.choice(
            [b"I32", b"F32", b"U8", b'"rows"', b'"crops"', b'"keys"', b'"scale"', b"[2,", b"samples", b"store"]
        )
        new = rng.choice([b"I8", b"F64", b"BOOL", b'"x"', b"[9,", b"[-1,", b"[99999999999,", b"{}"])
        content[8:end] = bytes(content[8:end]).replace(old, new).ljust(end - 8)
    elif how == 2:
        for _ in range(rng.randrange(1, 5)):
            content[rng.randrange(end, len(content))] = rng.choice([0, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    elif how == 3:
        content[end:] = rng.randbytes(len(content) - end)
    else:
        return damaged(rng, bytes(content))
    return bytes(content)


def manifest(rng: random.Random) -> bytes:
    """A manifest with a value replaced by any other."""
    view = {"crop_scale": [0.1, 1.0], "crop_ratio": [1.0, 1.0], "flip_fraction": 0.5, "count": 2, "frame": 8, "seed": 0}
    content = {"version": 2, "teacher": "t", "weights_sha256": "0", "width": 4, "stored_as": "fp32", "view": view}
    chosen: dict[str, Any] = rng.choice([content, view])
    chosen[rng.choice(list(chosen))] = rng.choice([None, -1, "x", [], {}, [1], 1e30, True, 10**30, [[]], [1e999, "x"]])
    said = json.dumps(content).encode()
    return damaged(rng, said) if rng.randrange(3) == 0 else said
