"""Odd, hostile and torn pictures and sentences: scaled, turned, or counted under a reason, before they cost anything."""

import io
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.data.convert.pictures import PictureOptions, prepare
from toolkit.data.decode import UPRIGHT, BadSample, decode_text
from toolkit.data.images import decode_image

LIMIT = 10**6


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colours(width: int = 6, height: int = 4) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(colours(), exif=exif)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(side: int) -> bytes:
    """A grey picture of that side, deflated row by row: small here, side * side bytes there."""
    deflate = zlib.compressobj(9)
    rows = [deflate.compress(bytes(side + 1)) for _ in range(side)]
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    content = chunk(b"IDAT", b"".join([*rows, deflate.flush()]))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + content + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled(kind: str) -> None:
    """The upper byte; PIL's own conversion makes everything above 255 white."""
    deep = np.array([[0, 255, 256, 1000], [30000, 40000, 65000, 65535]], dtype=np.uint16)
    found = np.asarray(decode_image(encoded(Image.fromarray(deep), kind), LIMIT))
    assert (found == (deep >> 8)[..., None]).all()


def test_transparency_is_dropped_as_open_clip_does() -> None:
    """`convert("RGB")`: the colours under the transparency."""
    clear = colours().convert("RGBA")
    clear.putalpha(0)
    assert np.array_equal(np.asarray(decode_image(encoded(clear), LIMIT)), np.asarray(colours()))
    grey = Image.merge("LA", [colours().convert("L"), Image.new("L", (6, 4), 9)])
    expected = np.asarray(colours().convert("L").convert("RGB"))
    assert np.array_equal(np.asarray(decode_image(encoded(grey), LIMIT)), expected)
    palette = Image.new("P", (5, 5), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    found = decode_image(encoded(palette, transparency=1), LIMIT)
    assert found.mode == "RGB" and found.getpixel((2, 2)) == (10, 20, 30)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    """Read alone: the others are not decoded."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    how = {"lossless": True} if kind == "WEBP" else {}
    moving = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **how)
    assert Image.open(io.BytesIO(moving)).n_frames == 3  # type: ignore[attr-defined]
    assert decode_image(moving, LIMIT).getpixel((3, 3)) == (255, 0, 0)


def test_cmyk_is_pils() -> None:
    """As open_clip has it."""
    data = encoded(colours().convert("CMYK"), "JPEG")
    assert decode_image(data, LIMIT).tobytes() == Image.open(io.BytesIO(data)).convert("RGB").tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_streams_and_converter_turn_alike(orientation: int) -> None:
    """What the converter writes is, read again, what the stream makes of the original: upright, no mark left."""
    upright = colours().transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else colours()
    found = decode_image(turned(orientation), LIMIT)
    assert found.size == upright.size and found.tobytes() == upright.tobytes()
    _, written, kept = prepare(turned(orientation), PictureOptions())
    assert kept == (orientation == 1) and decode_image(written, LIMIT).tobytes() == found.tobytes()


@pytest.mark.parametrize("deep", ["uint16", "uint8"])
def test_streams_and_converter_agree_on_grey(deep: str) -> None:
    """8 and 16 bits."""
    grey = Image.fromarray(
        np.arange(0, 60 if deep == "uint8" else 60000, 3 if deep == "uint8" else 3000, dtype=deep)[None]
    )
    _, written, _ = prepare(encoded(grey), PictureOptions())
    assert decode_image(written, LIMIT).tobytes() == decode_image(encoded(grey), LIMIT).tobytes()


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist(orientation: int) -> None:
    """Is none; neither is a torn EXIF a torn picture."""
    assert decode_image(turned(orientation), LIMIT).tobytes() == colours().tobytes()
    torn = encoded(colours(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode_image(torn, LIMIT).size == (6, 4)


def test_a_bomb_is_skipped_before_decoding() -> None:
    """400 million pixels: no time, no memory."""
    bomb = png_bomb(20_000)
    tracemalloc.start()
    start = time.perf_counter()
    for limit in (10**6, 89_478_485, 10**10):
        with pytest.raises(BadSample, match=r"^too_many_pixels$"):
            decode_image(bomb, limit)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.perf_counter() - start < 1 and peak < 4 * len(bomb) + 2**20


@pytest.mark.parametrize("size", [(1, 201), (4020, 20)])
def test_too_narrow(size: tuple[int, int]) -> None:
    """A line of pixels would be blown up to millions: the short side of a view is fixed."""
    with pytest.raises(BadSample, match=r"^too_narrow$"):
        decode_image(encoded(Image.new("L", size)), LIMIT)
    assert decode_image(encoded(Image.new("L", (1, 200))), LIMIT).size == (1, 200)


def test_torn_and_floating_pictures() -> None:
    """A JPEG cut in the middle, floats of unknown range, nothing at all."""
    jpeg = encoded(colours(64, 64), "JPEG")
    for data in (jpeg[: len(jpeg) // 2], b"", b"\0" * 100, encoded(colours(64, 64))[:-300]):
        with pytest.raises(BadSample, match=r"^undecodable$"):
            decode_image(data, LIMIT)
    with pytest.raises(BadSample, match=r"^floating_point_pixels$"):
        decode_image(encoded(Image.new("F", (4, 4)), "TIFF"), LIMIT)


def test_no_program_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PIL would run Ghostscript for an EPS: formats that are no pictures of pixels are not tried."""
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(BadSample, match=r"^undecodable$"):
        decode_image(encoded(colours(), "EPS"), LIMIT)
    assert not (tmp_path / "ran").exists()


TEXTS = {
    b"": "empty_text",
    b" \n\t": "empty_text",
    b"\xef\xbb\xbf": "empty_text",
    b"caf\xe9": "not_utf8",
    "two words".encode("utf-16"): "not_utf8",
    "two words".encode("utf-16-le"): "nul_in_text",
    b"\0\0": "nul_in_text",
    b"\xed\xa0\x80": "not_utf8",
    b"word " * 2_000_000: "too_many_bytes",
    b"x" * 5000: "too_many_bytes",
}


@pytest.mark.parametrize("data", TEXTS, ids=[f"{n}-{reason}" for n, reason in enumerate(TEXTS.values())])
def test_bad_sentences(data: bytes) -> None:
    """Each under its reason, whatever the length at once."""
    start = time.perf_counter()
    with pytest.raises(BadSample, match=f"^{TEXTS[data]}$"):
        decode_text(data)
    assert time.perf_counter() - start < 1


def test_good_sentences() -> None:
    """A byte order mark is no letter; long is allowed, in words."""
    assert decode_text(b"\xef\xbb\xbfa dog \r\n") == "a dog"
    assert decode_text(b"word " * 10_000) == ("word " * 10_000).strip()
