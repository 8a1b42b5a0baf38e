"""From bytes of a picture to the views that the student and the teacher see, as uint8."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from toolkit.config import Augmentation, Preprocess
from toolkit.data.boxes import Crop, area, crop_of, draw_box, frame_size, short_side_to
from toolkit.data.decode import UPRIGHT, BadSample, open_image, orientation_of, to_rgb, unfit
from toolkit.data.jpeg import decode_jpeg, jpeg_size

__all__ = [
    "BadSample",
    "Crop",
    "EncodedPicture",
    "Pixels",
    "crop_of",
    "cropped",
    "decode_image",
    "draw_crop",
    "is_plain",
    "plain_view",
    "random_view",
    "resampled",
    "shrunk",
    "size_of",
]

View = Callable[[Image.Image], UInt8[Tensor, "3 h w"]]
Pixels = Image.Image | UInt8[np.ndarray, "_ _ 3"]
"""An RGB picture; an array where making a PIL picture of it all would be for nothing."""
SIDEWAYS = tuple(UPRIGHT[orientation] for orientation in (5, 6, 7, 8))
SURE_PIXELS = 50_000_000
"""Above so many PIL is asked too, which has a limit of its own."""
LARGE_PIXELS = 2**16
"""From here on a picture is worth the way into torch and back."""
HOW = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class EncodedPicture:
    """Bytes of a picture, decoded as far as its views need it, and once for all views that need the same.

    Making one reads the header; this and every decoding raise BadSample(reason) instead of trusting the bytes, for a wrong
    size before a pixel is decoded. Pictures are as `to_rgb` makes them, whoever decodes.
    """

    def __init__(self, data: bytes, max_pixels: int) -> None:
        """An RGB or grey JPEG without EXIF or XMP needs PIL for nothing."""
        self._data = data
        self._header: Image.Image | None = None
        self._turn: Image.Transpose | None = None
        size = jpeg_size(data)
        if size is None or area(size) > SURE_PIXELS:
            self._header = open_image(data, max_pixels)
            size = self._header.size
            self._turn = UPRIGHT.get(orientation_of(self._header))
        elif reason := unfit(*size, max_pixels):
            raise BadSample(reason)
        self._size = size
        """(width, height) as the bytes have it, perhaps lying."""
        self._fast = self._header is None or (self._header.format == "JPEG" and self._header.mode in ("RGB", "L"))

    @cached_property
    def whole(self) -> Image.Image:
        """RGB, every pixel."""
        return Image.fromarray(self._array) if self._array is not None else self._through_pil(1)

    def frame(self, side: int) -> Pixels:
        """As `shrunk(whole, side)`; a JPEG is decoded at a half, a quarter or an eighth where that still is at least as large
        as the frame (mean difference 0.3 to 1.4 of 255 on photographs). The frame's size is the same either way, so a crop
        means the same region; and the bytes are the same whatever else has been decoded.
        """
        size = self._size if self._fast else self.whole.size
        upright = size[::-1] if self._fast and self._turn in SIDEWAYS else size
        wanted = frame_size(upright, side)
        reduce = next((n for n in (8, 4, 2) if min(size) // n >= min(wanted)), 1) if self._fast else 1
        if wanted == upright or reduce == 1:
            pixels = self.whole if self._array is None else self._array
            return pixels if wanted == upright else resampled(pixels, wanted)
        found = self._decoded(reduce)
        return resampled(self._through_pil(reduce) if found is None else found, wanted)

    @cached_property
    def _array(self) -> UInt8[np.ndarray, "h w 3"] | None:
        """All pixels of what a fast decoder can read."""
        return self._decoded(1) if self._fast else None

    def _decoded(self, reduce: int) -> UInt8[np.ndarray, "h w 3"] | None:
        """Upright, at a fraction; None where PIL must decode."""
        with bad_samples():
            found = decode_jpeg(self._data, self._size, reduce)
            return (
                found if found is None or self._turn is None else np.array(Image.fromarray(found).transpose(self._turn))
            )

    def _through_pil(self, reduce: int) -> Image.Image:
        """Of any format."""
        image, self._header = (
            self._header or open_image(self._data, area(self._size)),
            None,
        )  # a header can be used once
        with bad_samples():
            if reduce > 1:
                image.draft(None, (image.width // reduce, image.height // reduce))
            return to_rgb(image)


@contextmanager
def bad_samples() -> Iterator[None]:
    """Whatever decoding raises inside is a bad sample."""
    try:
        yield
    except BadSample:
        raise
    except Exception as error:  # PIL raises many kinds on hostile bytes: all of them are one bad sample
        raise BadSample("undecodable") from error


def decode_image(data: bytes, max_pixels: int) -> Image.Image:
    """RGB picture (see `to_rgb`); raises BadSample(reason) instead of trusting the bytes."""
    return EncodedPicture(data, max_pixels).whole


def plain_view(image: Image.Image, preprocess: Preprocess) -> UInt8[Tensor, "3 h w"]:
    """A model's own evaluation view, without the normalisation (which happens on the device).

    Resampled by PIL and from all pixels, so that it is open_clip's on every machine, stored or live.
    """
    side, how = preprocess.image_size, HOW[preprocess.interpolation]
    if preprocess.resize_mode == "squash":
        image = image.resize((side, side), how)
    elif preprocess.resize_mode == "longest":
        factor = side / max(image.size)
        image = image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))), how)
        image = centre_crop(image, side)
    elif image.size != (side, side):
        image = centre_crop(image.resize(short_side_to(side, image.size), how), side)
    return as_tensor(image)


def centre_crop(image: Image.Image, side: int) -> Image.Image:
    """A square from the middle, black where the picture is smaller; half pixels as torchvision rounds them."""
    left, top = (round((one - side) / 2) if one >= side else -((side - one) // 2) for one in image.size)
    return image.crop((left, top, left + side, top + side))


def as_tensor(image: Image.Image, flip: bool = False) -> UInt8[Tensor, "3 h w"]:
    """Planes of an RGB picture, mirrored or not, in one copy."""
    pixels = np.asarray(image)
    return torch.from_numpy(np.ascontiguousarray((pixels[:, ::-1] if flip else pixels).transpose(2, 0, 1)))


def is_plain(augmentation: Augmentation) -> bool:
    """Does it leave nothing to chance, so that the random view is the plain one."""
    whole = (1.0, 1.0)
    return (augmentation.crop_scale, augmentation.crop_ratio, augmentation.flip_fraction) == (whole, whole, 0.0)


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """DIME-FM's first step: the picture in its frame (bicubic), unchanged when it is not larger. Crops are boxes of what
    comes out.
    """
    wanted = frame_size(image.size, side)
    found = image if wanted == image.size else resampled(image, wanted)
    return found if isinstance(found, Image.Image) else Image.fromarray(found)


def resampled(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Bicubic with antialiasing: small pictures by PIL, larger ones by torch's kernel for bytes, which is PIL's filter in a
    quarter of PIL's time; one in a hundred values is off by 1 of 255 (it has 16 bits for a weight, PIL 22).
    """
    if area(size_of(pixels)) < LARGE_PIXELS:
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        return image.resize(size, HOW["bicubic"])
    array = np.array(pixels) if isinstance(pixels, Image.Image) else pixels
    planes = torch.from_numpy(array).permute(2, 0, 1)[None]
    width, height = size
    found = torch.nn.functional.interpolate(planes, (height, width), mode="bicubic", antialias=True)
    return np.ascontiguousarray(found[0].permute(1, 2, 0).numpy())


def size_of(pixels: Pixels) -> tuple[int, int]:
    """Width and height."""
    return pixels.size if isinstance(pixels, Image.Image) else (pixels.shape[1], pixels.shape[0])


def draw_crop(frame: Pixels, augmentation: Augmentation) -> Crop:
    """RandomResizedCrop and flip of a shrunk picture, drawn from torch's current generator: torchvision's own draws, in half
    of its time.
    """
    width, height = size_of(frame)
    box = draw_box(width, height, augmentation.crop_scale, augmentation.crop_ratio)
    return Crop(*box, flip=float(torch.rand(())) < augmentation.flip_fraction)


def cropped(frame: Pixels, crop: Crop, side: int) -> UInt8[Tensor, "3 h w"]:
    """The view of a shrunk picture that a crop says, square, bilinear (PIL's, exact)."""
    top, left, height, width, flip = crop
    if not isinstance(frame, Image.Image):
        image = Image.fromarray(np.ascontiguousarray(frame[top : top + height, left : left + width]))
    elif (width, height) != frame.size:
        image = frame.crop((left, top, left + width, top + height))
    else:
        image = frame
    if image.size != (side, side):
        image = image.resize((side, side), HOW["bilinear"])
    return as_tensor(image, flip)


def random_view(
    picture: Image.Image | EncodedPicture, preprocess: Preprocess, augmentation: Augmentation
) -> UInt8[Tensor, "3 h w"]:
    """The paper's training view: shrunk, cropped, flipped. Scale [1, 1], ratio [1, 1] and no flips mean the plain view."""
    side = preprocess.image_size
    if is_plain(augmentation):
        return plain_view(picture.whole if isinstance(picture, EncodedPicture) else picture, preprocess)
    frame = picture.frame(side) if isinstance(picture, EncodedPicture) else shrunk(picture, side)
    return cropped(frame, draw_crop(frame, augmentation), side)
