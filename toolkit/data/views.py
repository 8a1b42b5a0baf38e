"""bytes -> the views of a picture that a run needs; picklable, for data workers."""

import hashlib
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from toolkit.config import Augmentation, Preprocess
from toolkit.data.decode import BadSample
from toolkit.data.images import (
    Crop,
    EncodedPicture,
    Pixels,
    crop_of,
    cropped,
    decode_image,
    draw_crop,
    is_plain,
    plain_view,
    random_view,
    size_of,
)
from toolkit.data.seeding import cpu_generator


@dataclass
class TrainingViews:
    """`student_images` (random view) and per teacher `<name>_images` (plain, or the same crop at its size)."""

    student: Preprocess
    teachers: dict[str, Preprocess]
    augmentation: Augmentation
    teacher_view: str
    max_pixels: int
    frame: int = 0
    """Of the recorded crops that are replayed, 0 where there are none (RecordedViews)."""

    def __call__(self, data: bytes, crop: Crop | None = None) -> dict[str, Tensor]:
        """uint8 tensors [3, h, w]; a recorded `crop` is what everybody sees, each at its own size."""
        picture = EncodedPicture(data, self.max_pixels)
        if crop is not None:
            frame, sides = picture.frame(self.frame), {"student": self.student, **self.teachers}
            check_inside(crop, frame)
            return {f"{name}_images": cropped(frame, crop, p.image_size) for name, p in sides.items()}
        if self.teachers and self.teacher_view == "same":
            largest = max((self.student, *self.teachers.values()), key=lambda p: p.image_size)
            view = random_view(picture, largest, self.augmentation)
            views = {f"{name}_images": resized(view, p.image_size) for name, p in self.teachers.items()}
            return {"student_images": resized(view, self.student.image_size), **views}
        views = {"student_images": random_view(picture, self.student, self.augmentation)}
        made = {geometry(self.student): views["student_images"]} if is_plain(self.augmentation) else {}
        for name, preprocess in self.teachers.items():
            wanted = geometry(preprocess)
            if wanted not in made:
                made[wanted] = plain_view(picture.whole, preprocess)
            views[f"{name}_images"] = made[wanted]
        return views


@dataclass(frozen=True)
class RecordedViews:
    """Several random crops per picture, written down so that they can be seen again (MobileCLIP's reinforcement)."""

    preprocess: Preprocess
    """Of the model that sees them."""
    frame: int
    """Crops are boxes of the picture shrunk for a view of this side."""
    augmentation: Augmentation
    count: int
    seed: int
    max_pixels: int

    def identity(self) -> dict[str, object]:
        """What decides which crops there are."""
        rules = asdict(self.augmentation)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in rules.items()} | {
            "count": self.count, "frame": self.frame, "seed": self.seed
        }  # fmt: skip

    def __call__(self, data: bytes, key: str, crops: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """uint8 [v, 3, h, w] and the crops int32 [v, 5] they are of: `crops` if given, else drawn from (seed, key).

        Raises BadSample.
        """
        frame = EncodedPicture(data, self.max_pixels).frame(self.frame)
        if crops is None:
            drawn = int.from_bytes(hashlib.sha256(f"{self.seed}/{key}".encode()).digest()[:8], "little") >> 1
            with cpu_generator(drawn):
                found = [draw_crop(frame, self.augmentation) for _ in range(self.count)]
        else:
            found = [crop_of(row) for row in crops]
            for crop in found:
                check_inside(crop, frame)
        views = [cropped(frame, crop, self.preprocess.image_size) for crop in found]
        return torch.stack(views), torch.tensor(found, dtype=torch.int32)


def check_inside(crop: Crop, frame: Pixels) -> None:
    """Raise BadSample("crop_outside") for a recorded box that does not lie in the picture it is of."""
    top, left, height, width, _ = crop
    across, down = size_of(frame)
    if min(top, left, height - 1, width - 1) < 0 or left + width > across or top + height > down:
        raise BadSample("crop_outside")


@dataclass
class PlainViews:
    """Evaluation views, one per model: `{name}_images`."""

    models: dict[str, Preprocess]
    max_pixels: int

    def __call__(self, data: bytes) -> dict[str, Tensor]:
        """uint8 tensors [3, h, w]; models with the same preprocessing share one tensor."""
        image = decode_image(data, self.max_pixels)
        made: dict[Preprocess, Tensor] = {}
        for preprocess in self.models.values():
            if preprocess not in made:
                made[preprocess] = plain_view(image, preprocess)
        return {f"{name}_images": made[preprocess] for name, preprocess in self.models.items()}


def geometry(preprocess: Preprocess) -> tuple[int, str, str]:
    """What decides the bytes of a plain view; mean and deviation are applied later, on the device."""
    return preprocess.image_size, preprocess.interpolation, preprocess.resize_mode


def resized(crop: Tensor, side: int) -> Tensor:
    """A square view at another side, antialiased."""
    from torchvision.transforms import functional as F

    return crop if crop.shape[-1] == side else F.resize(crop, [side, side], antialias=True)
