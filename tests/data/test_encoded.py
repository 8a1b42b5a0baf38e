"""Encoded pictures: every decoder gives PIL's bytes, frames of large JPEGs are those of the original's size."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import functional as F

from toolkit.config import Augmentation, Preprocess
from toolkit.data import images, jpeg
from toolkit.data.boxes import frame_size
from toolkit.data.decode import BadSample, to_rgb
from toolkit.data.images import EncodedPicture, decode_image, plain_view, random_view, resampled, shrunk, size_of

USUAL = Augmentation()


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def paper_view(image: Image.Image, side: int, augmentation: Augmentation = USUAL) -> Tensor:
    """Short side to 256 (bicubic, in proportion to 224), bilinear crop, flip: torchvision's own steps."""
    short = round(side * 256 / 224)
    shrink = [transforms.Resize(short, transforms.InterpolationMode.BICUBIC)] if min(image.size) > short else []
    how = transforms.InterpolationMode.BILINEAR
    crop = transforms.RandomResizedCrop(side, augmentation.crop_scale, augmentation.crop_ratio, how)
    flip = transforms.RandomHorizontalFlip(augmentation.flip_fraction)
    return transforms.Compose([*shrink, crop, flip, transforms.PILToTensor()])(image)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Mean, in units of 1 of 255."""
    return float((ours.int() - theirs.int()).abs().float().mean())


def photo(width: int, height: int) -> Image.Image:
    """Smooth noise of several scales, as photographs have it, and a little grain."""
    draw = np.random.default_rng(width + height)
    pixels = draw.normal(128, 4, (height, width, 3))
    for cells, strength in ((4, 60), (16, 40), (64, 15)):
        coarse = draw.normal(0, strength, (max(2, cells * height // width), cells, 3)).clip(-120, 120) + 128
        smooth = Image.fromarray(coarse.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        pixels += np.asarray(smooth, dtype=float) - 128
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


JPEGS: dict[str, dict[str, object]] = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 2},
    "stored as RGB": {"keep_rgb": True},
    "rough": {"quality": 30},
}


def same(a: Image.Image | np.ndarray, b: Image.Image | np.ndarray) -> bool:
    """Pixel for pixel."""
    return np.array_equal(np.asarray(a), np.asarray(b))


SIZES = [(301, 263), (640, 480), (601, 1043)]


@pytest.fixture(params=["simplejpeg", "torchvision", "PIL"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to decode a JPEG in turn."""
    if request.param == "simplejpeg":
        pytest.importorskip("simplejpeg")
    elif request.param == "torchvision":
        monkeypatch.setattr(jpeg, "simplejpeg", None)
    else:
        monkeypatch.setattr(images, "decode_jpeg", lambda *_: None)
    return str(request.param)


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("size", SIZES)
def test_every_decoder_gives_the_same_bytes(decoder: str, size: tuple[int, int], kind: str) -> None:
    """PIL's, of whole pictures and of frames."""
    for image in (photo(*size), photo(*size).convert("L")):
        if image.mode == "L" and kind == "stored as RGB":
            continue
        data = encoded(image, "JPEG", **{"quality": 90} | JPEGS[kind])
        assert decode_image(data, 10**7).tobytes() == Image.open(io.BytesIO(data)).convert("RGB").tobytes()
        for reduce in (2, 4, 8):
            side = min(size) // reduce * 7 // 8  # frames are 8/7 as large as views
            less = Image.open(io.BytesIO(data))
            less.draft(None, (size[0] // reduce, size[1] // reduce))
            expected = resampled(less.convert("RGB"), frame_size(size, side))
            assert same(EncodedPicture(data, 10**7).frame(side), expected)


@pytest.mark.parametrize("size", [(1024, 768), (600, 1100), (513, 512), (2100, 2048)])
def test_crops_of_large_photographs_are_close_to_the_papers(size: tuple[int, int]) -> None:
    """The same region of a picture that was decoded at a half or less: below 2 of 255 in the mean."""
    data = encoded(photo(*size), "JPEG", quality=90)
    for seed in range(3):
        torch.manual_seed(seed)
        ours = random_view(EncodedPicture(data, 10**7), Preprocess(), Augmentation())
        torch.manual_seed(seed)
        theirs = paper_view(decode_image(data, 10**7), 224)
        assert difference(ours, theirs) < 2
        shifted = theirs.roll(1, dims=-1)
        assert difference(ours, theirs) < 0.7 * difference(ours, shifted)  # a frame off by a pixel would show


def test_a_frame_has_its_size_from_the_original_alone() -> None:
    """As torchvision computes it, whatever was decoded; a crop then means one region."""
    for size in [(513, 771), (1023, 1025), (2049, 700), (256, 400), (257, 400), (100, 90)]:
        data = encoded(photo(*size), "JPEG")
        whole = decode_image(data, 10**7)
        theirs = F.resize(whole, 256) if min(size) > 256 else whole
        found = EncodedPicture(data, 10**7)
        assert size_of(found.frame(224)) == frame_size(size, 224) == shrunk(whole, 224).size == theirs.size


def test_a_frame_does_not_depend_on_what_was_decoded_before() -> None:
    """A student's view is one with a live teacher, who looks at every pixel, and with a stored one."""
    data = encoded(photo(900, 700), "JPEG")
    alone, both = EncodedPicture(data, 10**7), EncodedPicture(data, 10**7)
    plain_view(both.whole, Preprocess())
    assert same(alone.frame(224), both.frame(224))
    assert both.whole.tobytes() == decode_image(data, 10**7).tobytes()


@pytest.mark.parametrize("cut", [0, 1, 60, 3000, -30])
def test_a_torn_jpeg_is_undecodable_for_every_decoder(decoder: str, cut: int) -> None:
    """Also where only a frame is wanted; and what all of PIL's users can see of a damaged one is seen."""
    data = encoded(photo(640, 480), "JPEG")
    for view in (lambda e: e.whole, lambda e: e.frame(100)):
        with pytest.raises(BadSample, match=r"^undecodable$"):
            view(EncodedPicture(data[:cut], 10**7))
    damaged = data[: len(data) // 2] + b"\x55" * 40 + data[len(data) // 2 + 40 :]
    assert decode_image(damaged, 10**7).size == (640, 480)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_lying_jpeg_is_put_upright_by_every_decoder(decoder: str, orientation: int) -> None:
    """As EXIF says, whole and in its frame, of which the size is the upright picture's."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(640, 480), "JPEG", exif=exif)
    expected = to_rgb(Image.open(io.BytesIO(data)))
    assert expected.size == ((640, 480) if orientation < 5 else (480, 640))
    assert decode_image(data, 10**7).tobytes() == expected.tobytes()
    less = Image.open(io.BytesIO(data))
    less.draft(None, (320, 240))
    frame = EncodedPicture(data, 10**7).frame(200)
    assert size_of(frame) == frame_size(expected.size, 200)
    assert same(frame, resampled(to_rgb(less), frame_size(expected.size, 200)))


def test_other_formats_have_frames_too() -> None:
    """Not only JPEGs, and CMYK ones."""
    for kind, mode in (("PNG", "RGB"), ("PNG", "P"), ("WEBP", "RGB"), ("GIF", "P"), ("JPEG", "CMYK"), ("TIFF", "RGB")):
        data = encoded(photo(640, 480).convert(mode), kind)
        expected = shrunk(decode_image(data, 10**7), 200)
        assert same(EncodedPicture(data, 10**7).frame(200), expected)
        assert same(EncodedPicture(data, 10**7).frame(500), decode_image(data, 10**7))


@pytest.mark.parametrize("limit", [640 * 480 - 1, 640 * 480])
def test_a_jpeg_has_its_size_looked_at_first(decoder: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many pixels are refused without decoding one, up to the limit they are used."""
    data = encoded(photo(640, 480), "JPEG")
    if limit == 640 * 480:
        assert decode_image(data, limit).size == (640, 480)
        return
    monkeypatch.setattr(images, "decode_jpeg", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(images, "to_rgb", lambda *_: pytest.fail("decoded"))
    with pytest.raises(BadSample, match=r"^too_many_pixels$"):
        EncodedPicture(data, limit)
    with pytest.raises(BadSample, match=r"^too_narrow$"):
        EncodedPicture(encoded(Image.new("RGB", (2010, 10)), "JPEG"), 10**7)
