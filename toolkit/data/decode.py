"""From bytes that nobody vouches for to a sentence or an upright RGB picture; imports no torch."""

import io
import re

import numpy as np
from PIL import Image

Image.init()
FORMATS = tuple(f for f in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO", "AVIF") if f in Image.OPEN)
"""Only these are tried: PIL would start Ghostscript for an EPS."""
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""
MAX_RATIO = 200
"""Longer against shorter side; a view whose short side is 224 would have 10 million pixels."""
MAX_BYTES = 1 << 29
"""Of one field of a sample, whatever it holds."""
MAX_TEXT_BYTES = 1 << 16
"""As `dime shards texts` has it; tokenizers keep less than a hundred words."""
MAX_WORD = 4096
"""Letters without a break: the byte pair tokenizers need the square of it (half a second here, a minute at 64 KiB)."""
_WORDS = re.compile(r"\w+")


class BadSample(Exception):
    """A sample that cannot be used; its first argument is the reason it is counted under."""


def decode_text(data: bytes) -> str:
    """A sentence, stripped, without byte order mark.

    Raises BadSample: `not_utf8`; `nul_in_text` (UTF-16 or no text at all); `empty_text`; `too_many_bytes` above 64 KiB or
    4096 letters in a row.
    """
    if len(data) > MAX_TEXT_BYTES:
        raise BadSample("too_many_bytes")
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise BadSample("not_utf8") from error
    if "\0" in text:
        raise BadSample("nul_in_text")
    if not text:
        raise BadSample("empty_text")
    if len(text) > MAX_WORD and max(map(len, _WORDS.findall(text)), default=0) > MAX_WORD:
        raise BadSample("too_many_bytes")
    return text


def open_image(data: bytes, max_pixels: int) -> Image.Image:
    """Its header read, its pixels not; raises BadSample("undecodable", "too_many_pixels" or "too_narrow")."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:  # PIL's own, higher limit
        raise BadSample("too_many_pixels") from error
    except Exception as error:  # PIL raises many kinds on hostile bytes: all of them are one bad sample
        raise BadSample("undecodable") from error
    if reason := unfit(image.width, image.height, max_pixels):
        raise BadSample(reason)
    return image


def unfit(width: int, height: int, max_pixels: int) -> str:
    """Why a picture of this size is left out before it is decoded, or an empty string."""
    if width * height > max_pixels:
        return "too_many_pixels"
    if min(width, height) < 1:
        return "undecodable"
    return "too_narrow" if max(width, height) > MAX_RATIO * min(width, height) else ""


def to_rgb(image: Image.Image) -> Image.Image:
    """8 bits, RGB, the first frame, upright: what a picture of any kind is to a model.

    As open_clip (`convert("RGB")`) but for two things. 16 bits are scaled (PIL makes everything above 255 white). Pictures
    are turned as their EXIF says, so that a picture looks the same whether `dime shards images` has written it anew or not;
    open_clip shows them lying. Transparency is dropped, as open_clip does; the converter lays it over white. Raises
    BadSample("floating_point_pixels"), and what PIL raises on torn bytes.
    """
    image.load()
    orientation = orientation_of(image)
    image = eight_bits(image).convert("RGB")
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def eight_bits(image: Image.Image) -> Image.Image:
    """The picture itself, or the upper byte of a 16-bit grey one; raises BadSample("floating_point_pixels")."""
    if image.mode == "F":
        raise BadSample("floating_point_pixels")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))


def orientation_of(image: Image.Image) -> int:
    """1 to 8 as EXIF counts them; 1 where there is none or it cannot be read."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # torn EXIF does not spoil the picture
        return 1
