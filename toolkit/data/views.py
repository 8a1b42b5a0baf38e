"""bytes -> the views of a picture that a run needs; picklable, for data workers."""

from dataclasses import dataclass

from torch import Tensor

from toolkit.config import Augmentation, Preprocess
from toolkit.data.images import EncodedPicture, decode_image, is_plain, plain_view, random_view


@dataclass
class TrainingViews:
    """`student_images` (random view) and per teacher `<name>_images` (plain, or the same crop at its size)."""

    student: Preprocess
    teachers: dict[str, Preprocess]
    augmentation: Augmentation
    teacher_view: str
    max_pixels: int

    def __call__(self, data: bytes) -> dict[str, Tensor]:
        """uint8 tensors [3, h, w]."""
        picture = EncodedPicture(data, self.max_pixels)
        if self.teachers and self.teacher_view == "same":
            largest = max((self.student, *self.teachers.values()), key=lambda p: p.image_size)
            crop = random_view(picture, largest, self.augmentation)
            views = {f"{name}_images": resized(crop, p.image_size) for name, p in self.teachers.items()}
            return {"student_images": resized(crop, self.student.image_size), **views}
        views = {"student_images": random_view(picture, self.student, self.augmentation)}
        made = {geometry(self.student): views["student_images"]} if is_plain(self.augmentation) else {}
        for name, preprocess in self.teachers.items():
            wanted = geometry(preprocess)
            if wanted not in made:
                made[wanted] = plain_view(picture.whole, preprocess)
            views[f"{name}_images"] = made[wanted]
        return views


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
