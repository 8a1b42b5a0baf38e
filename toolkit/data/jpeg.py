"""JPEGs decoded faster than PIL decodes them, to the same bytes: simplejpeg where it is installed, else torchvision."""

import numpy as np
import torch
from jaxtyping import UInt8

try:
    import simplejpeg
except ImportError:  # optional: pip install 'dime-fm-toolkit[fast]'
    simplejpeg = None

PRELOAD = () if simplejpeg else ("torchvision.io",)
"""What a data worker's parent imports beside the toolkit, so that each worker does not."""


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of an RGB or grey JPEG in a fifth of the time that PIL needs.

    None for everything else, and where an EXIF or XMP segment may say that the picture lies: there PIL must look.
    """
    if simplejpeg is None or not data.startswith(b"\xff\xd8\xff") or has_application_data(data):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except (ValueError, RuntimeError):
        return None
    return (width, height) if colours in ("RGB", "YCbCr", "Gray") else None


def has_application_data(data: bytes) -> bool:
    """Is there an APP1 segment (EXIF, XMP) before the pixels, or a structure that cannot be followed."""
    place = 2
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        marker = data[place + 1]
        if marker == 0xDA:  # the pixels begin
            return False
        if marker == 0xE1:
            return True
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return True


def decode_jpeg(data: bytes, size: tuple[int, int], reduce: int) -> UInt8[np.ndarray, "h w 3"] | None:
    """Pixels of an RGB or grey JPEG of `size` (width, height), at 1/`reduce` of it (1, 2, 4, 8; sides rounded up).

    None where these libraries have no answer: the bytes are damaged (also where PIL would put up with it), or pixels at a
    fraction are wanted and only torchvision is there. All three call libjpeg-turbo with the same settings.
    """
    width, height = (-(-one // reduce) for one in size)
    try:
        if simplejpeg is not None:
            found = simplejpeg.decode_jpeg(data, "RGB", min_width=width, min_height=height)
        elif reduce == 1:
            found = through_torchvision(data)
        else:
            return None
    except (ValueError, RuntimeError):
        return None
    return found if found.shape == (height, width, 3) else None


def through_torchvision(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Raises RuntimeError for what it cannot decode. The import takes a second: see PRELOAD."""
    from torchvision.io import ImageReadMode
    from torchvision.io import decode_jpeg as decode

    pixels = decode(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
