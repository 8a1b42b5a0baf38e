"""From bytes of a picture to the views that the student and the teacher see, as uint8."""

import io
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as F

from toolkit.config import Augmentation, Preprocess
from toolkit.data.bad_sample import BadSample

View = Callable[[Image.Image], UInt8[Tensor, "3 h w"]]


def decode_image(data: bytes, max_pixels: int) -> Image.Image:
    """RGB picture; raises BadSample("undecodable" or "too_many_pixels") instead of trusting the bytes."""
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > max_pixels:
            raise BadSample("too_many_pixels")
        return image.convert("RGB")
    except BadSample:
        raise
    except Image.DecompressionBombError as error:  # PIL's own, higher limit
        raise BadSample("too_many_pixels") from error
    except Exception as error:  # PIL raises many kinds on hostile bytes: all of them are one bad sample
        raise BadSample("undecodable") from error


def plain_view(image: Image.Image, preprocess: Preprocess) -> UInt8[Tensor, "3 h w"]:
    """A model's own evaluation view, without the normalisation (which happens on the device)."""
    side = preprocess.image_size
    how = InterpolationMode(preprocess.interpolation)
    if preprocess.resize_mode == "squash":
        image = F.resize(image, [side, side], how)
    elif preprocess.resize_mode == "longest":
        factor = side / max(image.size)
        image = F.resize(image, [max(1, round(image.height * factor)), max(1, round(image.width * factor))], how)
        image = F.center_crop(image, [side, side])
    elif min(image.size) != side or image.width != image.height:
        image = F.center_crop(F.resize(image, side, how), [side, side])
    return F.pil_to_tensor(image)


def is_plain(augmentation: Augmentation) -> bool:
    """Does it leave nothing to chance, so that the random view is the plain one."""
    whole = (1.0, 1.0)
    return (augmentation.crop_scale, augmentation.crop_ratio, augmentation.flip_fraction) == (whole, whole, 0.0)


class Crop(NamedTuple):
    """A box of a shrunk picture in pixels, and whether it is mirrored: all that chance decides about a view."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """DIME-FM's first step: pictures larger than 256 are brought to a short side of 256 (bicubic, in proportion for views of
    another `side` than 224). Crops are boxes of what comes out.
    """
    short = round(side * 256 / 224)
    return F.resize(image, short, InterpolationMode.BICUBIC) if min(image.size) > short else image


def draw_crop(image: Image.Image, augmentation: Augmentation) -> Crop:
    """RandomResizedCrop and flip of a shrunk picture, drawn from torch's current generator."""
    box = RandomResizedCrop.get_params(image, list(augmentation.crop_scale), list(augmentation.crop_ratio))
    return Crop(*box, flip=float(torch.rand(())) < augmentation.flip_fraction)


def cropped(image: Image.Image, crop: Crop, side: int) -> UInt8[Tensor, "3 h w"]:
    """The view of a shrunk picture that a crop says, square, bilinear."""
    top, left, height, width, flip = crop
    if (top, left, height, width) != (0, 0, side, side) or image.size != (side, side):
        image = F.resized_crop(image, top, left, height, width, [side, side], InterpolationMode.BILINEAR)
    return F.pil_to_tensor(F.hflip(image) if flip else image)


def random_view(image: Image.Image, preprocess: Preprocess, augmentation: Augmentation) -> UInt8[Tensor, "3 h w"]:
    """The paper's training view: shrunk, cropped, flipped. Scale [1, 1], ratio [1, 1] and no flips mean the plain view."""
    if is_plain(augmentation):
        return plain_view(image, preprocess)
    image = shrunk(image, preprocess.image_size)
    return cropped(image, draw_crop(image, augmentation), preprocess.image_size)
