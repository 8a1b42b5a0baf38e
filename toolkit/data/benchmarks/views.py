"""Pictures of a set as a model sees them: bytes to uint8, one at a time, also in worker processes."""

from dataclasses import replace
from typing import Any

from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from toolkit.config import Preprocess
from toolkit.data.benchmarks.split import MAX_PIXELS, Split
from toolkit.data.decode import BadSample
from toolkit.data.images import decode_image, plain_view


def view_of(data: bytes, preprocess: Preprocess, squash: bool, max_pixels: int = MAX_PIXELS) -> UInt8[Tensor, "3 h w"]:
    """The model's evaluation view of an encoded picture, upright as EXIF says, not yet normalised.

    `squash` (a set whose entry says `resize="squash"`) resizes both sides without a crop, whatever the model is used to.
    Raises BadSample.
    """
    wanted = replace(preprocess, resize_mode="squash") if squash else preprocess
    return plain_view(decode_image(data, max_pixels), wanted)


class SplitViews(Dataset[dict[str, Any]]):
    """Every picture of a split in its order, as `{"index": row, "images": uint8 [3, h, w]}`; a worker may have a copy."""

    def __init__(self, split: Split, preprocess: Preprocess, squash: bool) -> None:
        """Reads nothing yet."""
        self.split, self.preprocess, self.squash = split, preprocess, squash

    def __len__(self) -> int:
        """Pictures."""
        return len(self.split)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Raises DataError naming a picture that cannot be read or decoded."""
        data = self.split.pictures[row]
        try:
            view = view_of(data, self.preprocess, self.squash)
        except BadSample as error:
            raise self.split.unfit(row, error) from error
        return {"index": row, "images": view}
