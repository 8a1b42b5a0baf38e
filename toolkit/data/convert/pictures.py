"""Bytes of a picture as found -> bytes of a picture as stored.

The rule: the bytes are kept as they are when they are an RGB or grey JPEG, PNG or WebP of 8 bits without transparency,
rotation mark or further frames whose short side is not above `short_side`. Anything else is written anew: rotated as its
EXIF says, first frame, transparency over white, RGB, the short side brought to `short_side` (bicubic, never enlarged). It
becomes a JPEG of `jpeg_quality` (4:2:0) when it was resized or was a JPEG, a lossless PNG otherwise.
"""

import io
from dataclasses import dataclass

from PIL import Image

from toolkit.data.convert.outcome import LeftOut
from toolkit.data.decode import FORMATS, UPRIGHT, BadSample, eight_bits, orientation_of, unfit
from toolkit.errors import ConfigError

KEPT_AS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
EXTENSIONS = frozenset(
    (
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "png",
        "webp",
        "gif",
        "bmp",
        "tif",
        "tiff",
        "ppm",
        "pgm",
        "pbm",
        "pnm",
        "mpo",
        "avif",
    )
)


@dataclass(frozen=True)
class PictureOptions:
    """What `dime shards images` was asked for."""

    short_side: int = 0
    """Pixels that larger pictures are brought to; 0 leaves sizes alone."""
    jpeg_quality: int = 95
    dedupe: str = "exact"
    """exact (same bytes), near (perceptual hash) or none."""
    near_distance: int = 3
    """Bits of 64 in which the hashes of near-duplicates may differ."""
    min_side: int = 0
    max_pixels: int = 89_478_485
    samples_per_shard: int = 1000
    keep: tuple[str, ...] = ()
    """Fields kept beside the picture, as keep.py reads them: `txt`, `txt=alt_text`, `json`."""

    def check(self) -> None:
        """Raise ConfigError for what cannot be meant."""
        if not 1 <= self.jpeg_quality <= 100:
            raise ConfigError(f"--jpeg-quality {self.jpeg_quality} must lie in 1..100")
        if self.near_distance > 15:
            raise ConfigError(
                f"--near-distance {self.near_distance}: at most 15 of 64 bits, more finds strangers alike"
            )
        if self.samples_per_shard < 1 or self.max_pixels < 1:
            raise ConfigError("--samples-per-shard and --max-pixels must be at least 1")
        if 0 < self.short_side < self.min_side:
            raise ConfigError(f"--min-side ({self.min_side}) is above --short-side ({self.short_side}); lower it")

    @property
    def looks_early(self) -> bool:
        """Are sizes looked at before duplicates are dropped: else a thumbnail could push its original out."""
        return self.dedupe == "near" or self.min_side > 0


def open_picture(data: bytes, options: PictureOptions) -> Image.Image:
    """Header read, pixels not; raises LeftOut for what is empty, no picture, too small, large or narrow."""
    if not data:
        raise LeftOut("empty")
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # our own limit, on the next lines
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # PIL raises many kinds on hostile bytes: all of them are one bad sample
        raise LeftOut("undecodable") from error
    finally:
        Image.MAX_IMAGE_PIXELS = before
    if reason := unfit(image.width, image.height, options.max_pixels):
        raise LeftOut(reason)
    if min(image.size) < options.min_side:
        raise LeftOut("too_small")
    return image


def prepare(data: bytes, options: PictureOptions) -> tuple[str, bytes, bool]:
    """Extension, bytes, and whether they are those given; raises LeftOut. Every picture is decoded once."""
    image = open_picture(data, options)
    try:
        shrink = 0 < options.short_side < min(image.size)
        if not shrink and stored_well(image, data):
            read_to_the_end(image)
            return KEPT_AS[str(image.format)], data, True
        lossless = image.format not in ("JPEG", "MPO") and not shrink
        if shrink:
            width, height = shrunk(image.size, 2 * options.short_side)
            image.draft(None, (width, height))  # a JPEG is decoded smaller where that leaves twice what is needed
        image = upright_rgb(image)
        if shrink:
            image = image.resize(shrunk(image.size, options.short_side), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        if lossless:
            image.save(buffer, "PNG")
        else:
            image.save(buffer, "JPEG", quality=options.jpeg_quality)
        return ("png" if lossless else "jpg"), buffer.getvalue(), False
    except LeftOut:
        raise
    except Exception as error:  # as above
        raise LeftOut("undecodable") from error


def read_to_the_end(image: Image.Image) -> None:
    """Raises what PIL raises on a torn picture; a JPEG is decoded at an eighth of its size, from all of its bytes."""
    image.draft(None, (1, 1))
    image.load()


def stored_well(image: Image.Image, data: bytes) -> bool:
    """Would every decoder make the same upright RGB picture of these bytes."""
    return (
        image.format in KEPT_AS
        and image.mode in ("RGB", "L")
        and "transparency" not in image.info
        and not (image.format == "PNG" and data[24] == 16)
        and not getattr(image, "is_animated", False)
        and orientation_of(image) not in UPRIGHT
    )


def upright_rgb(image: Image.Image) -> Image.Image:
    """Rotated as EXIF says, 8 bits, transparency over white, RGB; of an animation the first frame."""
    image.load()
    orientation = orientation_of(image)
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    try:
        image = eight_bits(image)
    except BadSample as error:
        raise LeftOut(str(error)) from error
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
        ground = Image.new("RGB", image.size, (255, 255, 255))
        ground.paste(image, mask=image.getchannel("A"))
        return ground
    return image.convert("RGB")


def shrunk(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Short side exactly `side`, the other in proportion."""
    width, height = size
    return (side, round(height * side / width)) if width <= height else (round(width * side / height), side)
