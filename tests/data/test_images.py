"""From bytes to views: what the teacher sees is what open_clip would show it."""

import io
from collections.abc import Callable

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import functional as F

from toolkit.config import Augmentation, Preprocess
from toolkit.data.decode import BadSample
from toolkit.data.images import (
    decode_image,
    plain_view,
    random_view,
)
from toolkit.data.views import PlainViews, TrainingViews
from toolkit.models.contract import normalise

USUAL = Augmentation()
IDENTITY = Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip_fraction=0.0)


def picture(width: int, height: int) -> Image.Image:
    """Smooth colours with an edge, so that resampling and cropping show."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 // width, y * 255 // height, 255 * ((x + y) % 16 < 8)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(100, 60), (61, 97), (48, 48), (20, 30), (64, 64)])
def test_plain_view_equals_open_clip(size: tuple[int, int], interpolation: str, mode: str) -> None:
    """Bytes, normalised on the device, against open_clip's own transform: equal to rounding, 0/255 for padding."""
    preprocess = Preprocess(image_size=48, interpolation=interpolation, resize_mode=mode)  # type: ignore[arg-type]
    theirs = open_clip.image_transform(
        48, is_train=False, mean=preprocess.mean, std=preprocess.std, interpolation=interpolation, resize_mode=mode
    )(picture(*size))
    ours = normalise(plain_view(picture(*size), preprocess)[None], preprocess)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_normalise_uses_each_channel_of_its_own() -> None:
    """Black and white at the ends."""
    preprocess = Preprocess(image_size=1, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    ends = torch.tensor([[[[0]], [[0]], [[0]]], [[[255]], [[255]], [[255]]]], dtype=torch.uint8)
    expected = [[-0.2, -0.8, -0.15], [1.8, 3.2, 0.35]]
    torch.testing.assert_close(normalise(ends, preprocess).flatten(1), torch.tensor(expected))


@pytest.mark.parametrize("size", [(100, 60), (24, 24), (300, 300)])
def test_no_crop_and_no_flip_is_the_plain_view(size: tuple[int, int]) -> None:
    """Whatever the seed."""
    preprocess = Preprocess(image_size=24)
    for seed in range(3):
        torch.manual_seed(seed)
        assert torch.equal(random_view(picture(*size), preprocess, IDENTITY), plain_view(picture(*size), preprocess))


def test_the_same_seed_gives_the_same_crop() -> None:
    """And another seed another one."""

    def view(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return random_view(picture(90, 70), Preprocess(image_size=24), Augmentation())

    assert torch.equal(view(1), view(1)) and not torch.equal(view(1), view(2))
    assert view(1).shape == (3, 24, 24) and view(1).dtype == torch.uint8


def paper_view(image: Image.Image, side: int, augmentation: Augmentation = USUAL) -> Tensor:
    """Short side to 256 (bicubic, in proportion to 224), bilinear crop, flip: torchvision's own steps."""
    short = round(side * 256 / 224)
    shrink = [transforms.Resize(short, transforms.InterpolationMode.BICUBIC)] if min(image.size) > short else []
    how = transforms.InterpolationMode.BILINEAR
    crop = transforms.RandomResizedCrop(side, augmentation.crop_scale, augmentation.crop_ratio, how)
    flip = transforms.RandomHorizontalFlip(augmentation.flip_fraction)
    return transforms.Compose([*shrink, crop, flip, transforms.PILToTensor()])(image)


@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (1.0, 1.0), (0.2, 0.3)])
@pytest.mark.parametrize("size", [(100, 64), (40, 30), (64, 64), (300, 20), (20, 300), (56, 56)])
def test_the_students_view_is_the_papers(size: tuple[int, int], ratio: tuple[float, float]) -> None:
    """Where nothing is shrunk: draw for draw and bit for bit, also where no box fits in ten attempts."""
    augmentation = Augmentation((0.08, 1.0), ratio)
    for seed in range(8):
        torch.manual_seed(seed)
        ours = random_view(picture(*size), Preprocess(image_size=56), augmentation)
        ours_next = torch.rand(1)
        torch.manual_seed(seed)
        assert torch.equal(ours, paper_view(picture(*size), 56, augmentation))
        assert torch.equal(ours_next, torch.rand(1))


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Mean, in units of 1 of 255."""
    return float((ours.int() - theirs.int()).abs().float().mean())


def test_a_larger_picture_is_shrunk_as_the_papers_to_rounding() -> None:
    """The same box of a frame that another kernel has resampled."""
    for size in ((400, 300), (100, 300), (65, 66)):
        for seed in range(5):
            torch.manual_seed(seed)
            ours = random_view(picture(*size), Preprocess(image_size=56), Augmentation())
            torch.manual_seed(seed)
            theirs = paper_view(picture(*size), 56)
            assert difference(ours, theirs) < 0.2 and int((ours.int() - theirs.int()).abs().max()) <= 6


def test_flips_alone() -> None:
    """A full crop of a picture of the right size is not resampled, so a flip is exact, and half of them are flipped."""
    preprocess, half = Preprocess(image_size=24), Augmentation((1.0, 1.0), (1.0, 1.0), 0.5)
    plain = plain_view(picture(24, 24), preprocess)
    torch.manual_seed(0)
    flipped = 0
    for _ in range(200):
        view = random_view(picture(24, 24), preprocess, half)
        assert torch.equal(view, plain) or torch.equal(view, plain.flip(-1))
        flipped += not torch.equal(view, plain)
    assert 70 < flipped < 130
    always = random_view(picture(24, 24), preprocess, Augmentation((1.0, 1.0), (1.0, 1.0), 1.0))
    assert torch.equal(always, plain.flip(-1))


def test_crops_keep_the_area_that_was_asked_for() -> None:
    """On a picture whose pixels say where they are, the share of the side that a crop spans can be read off."""
    ramp = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (200, 1))).convert("RGB")
    torch.manual_seed(0)
    for _ in range(20):
        view = random_view(ramp, Preprocess(image_size=200), Augmentation((0.25, 0.25), (1.0, 1.0), 0.0)).float()
        assert float(view.max() - view.min()) == pytest.approx(100, abs=3)


def test_teacher_sees_the_plain_picture() -> None:
    """The paper: a random crop for the student, the picture for the teacher."""
    views = TrainingViews(
        Preprocess(image_size=16), {"teacher": Preprocess(image_size=32)}, Augmentation(), "plain", 10**6
    )
    torch.manual_seed(0)
    found = views(encoded(picture(80, 60)))
    assert torch.equal(found["teacher_images"], plain_view(picture(80, 60), Preprocess(image_size=32)))
    assert found["student_images"].shape == (3, 16, 16)


@pytest.mark.parametrize(("student", "teacher"), [(16, 32), (32, 16), (24, 24)])
def test_teacher_sees_the_same_crop(student: int, teacher: int) -> None:
    """One crop, made at the larger side and brought to the smaller one."""
    sizes = {"student_images": Preprocess(image_size=student), "teacher_images": Preprocess(image_size=teacher)}
    both = sizes["student_images"], {"teacher": sizes["teacher_images"]}
    views = TrainingViews(*both, Augmentation((0.3, 0.5)), "same", 10**6)
    torch.manual_seed(4)
    found = views(encoded(picture(80, 60)))
    largest = max(found, key=lambda name: found[name].shape[-1])
    torch.manual_seed(4)
    alone = random_view(picture(80, 60), sizes[largest], Augmentation((0.3, 0.5)))
    assert torch.equal(found[largest], alone)
    for name, preprocess in sizes.items():
        side = preprocess.image_size
        assert torch.equal(found[name], F.resize(alone, [side, side], antialias=True))


def test_several_teachers() -> None:
    """Each its own view; equal ones are made once."""
    sizes = {
        "teacher": Preprocess(image_size=32),
        "second": Preprocess(image_size=24),
        "third": Preprocess(image_size=32),
    }
    found = TrainingViews(Preprocess(image_size=16), sizes, Augmentation(), "plain", 10**6)(encoded(picture(40, 40)))
    assert [found[f"{name}_images"].shape[-1] for name in sizes] == [32, 24, 32]
    assert found["third_images"] is found["teacher_images"]


def test_without_a_teacher_there_is_one_view() -> None:
    """Paired training."""
    views = TrainingViews(Preprocess(image_size=16), {}, Augmentation(), "plain", 10**6)
    assert set(views(encoded(picture(20, 20)))) == {"student_images"}


def test_evaluation_views() -> None:
    """One per model, by its own preprocessing; equal ones are made once."""
    small, large = Preprocess(image_size=16), Preprocess(image_size=32)
    found = PlainViews({"a": small, "b": large, "c": Preprocess(image_size=16)}, 10**6)(encoded(picture(40, 40)))
    assert found["a_images"].shape == (3, 16, 16) and found["b_images"].shape == (3, 32, 32)
    assert found["c_images"] is found["a_images"]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK", "I;16"])
def test_every_kind_of_picture_becomes_rgb(mode: str) -> None:
    """Grey, palette, transparent, and printers' pictures."""
    image = picture(10, 12).convert("L").convert("I;16") if mode == "I;16" else picture(10, 12).convert(mode)
    found = decode_image(encoded(image, "TIFF" if mode in ("CMYK", "I;16") else "PNG"), 10**6)
    assert found.mode == "RGB" and found.size == (10, 12)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG", "GIF"])
def test_formats(kind: str) -> None:
    """Whatever the extension says, the bytes decide."""
    assert decode_image(encoded(picture(10, 12), kind), 10**6).size == (10, 12)


def bomb(side: int) -> bytes:
    """A black picture: few bytes, many pixels."""
    return encoded(Image.new("1", (side, side)))


def test_a_decompression_bomb_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is checked on the header; PIL's own, higher limit counts as the same reason."""
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    for side, limit in ((101, 10_000), (14_000, 10**12)):
        with pytest.raises(BadSample, match=r"^too_many_pixels$"):
            decode_image(bomb(side), limit)


def test_pictures_up_to_the_limit_are_used() -> None:
    """Exactly so many are allowed."""
    assert decode_image(bomb(100), 10_000).size == (100, 100)


@pytest.mark.parametrize("cut", [0, 1, 60, -30])
def test_undecodable(cut: int) -> None:
    """Nothing, one byte, a header alone, a cut end."""
    with pytest.raises(BadSample, match=r"^undecodable$"):
        decode_image(encoded(picture(64, 64))[:cut], 10**6)


def test_the_reason_of_a_bad_sample_is_its_first_argument(png: Callable[[int], bytes]) -> None:
    """What it is counted under."""
    assert BadSample("undecodable").args[0] == "undecodable" and decode_image(png(0), 10**6).size == (16, 16)
