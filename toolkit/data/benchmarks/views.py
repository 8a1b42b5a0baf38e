"""Pictures of a split as a model wants them."""

from dataclasses import dataclass, replace

from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from toolkit.config import Preprocess
from toolkit.data.benchmarks.split import MAX_PIXELS, Split, decoded
from toolkit.data.decode import BadSample
from toolkit.data.images import plain_view
from toolkit.errors import DataError


def view_of(data: bytes, preprocess: Preprocess, squash: bool = False) -> UInt8[Tensor, "3 h w"]:
    """A model's evaluation view of an encoded picture, upright as EXIF says; `squash` resizes both sides, as KITTI is judged.

    Raises BadSample.
    """
    chosen = replace(preprocess, resize_mode="squash") if squash else preprocess
    return plain_view(decoded(data, MAX_PIXELS), chosen)


@dataclass
class SplitViews(Dataset[dict[str, Tensor | int]]):
    """`{"index", "images"}` of each picture of a split, for data workers."""

    split: Split
    preprocess: Preprocess
    squash: bool = False

    def __len__(self) -> int:
        """Pictures."""
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        """uint8 [3, h, w]; DataError naming a picture that cannot be decoded."""
        try:
            view = view_of(self.split.pictures[index], self.preprocess, self.squash)
        except BadSample as error:
            key = self.split.pictures.key(index)
            raise DataError(
                f"{self.split.name} {self.split.split}: {key} in {self.split.where} cannot be judged: {error}"
            ) from error
        return {"index": index, "images": view}
