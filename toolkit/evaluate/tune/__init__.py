"""Fine-tuning of an image tower with its head: ELEVATER's protocol and a clean one, with the linear probe's search."""

from toolkit.evaluate.tune.pictures import LabelledViews, TunedImages, pictures_of, tuned_images
from toolkit.evaluate.tune.progress import Progress
from toolkit.evaluate.tune.protocols import TuneResult, fine_tune
from toolkit.evaluate.tune.training import TuneSettings

__all__ = [
    "LabelledViews",
    "Progress",
    "TuneResult",
    "TuneSettings",
    "TunedImages",
    "fine_tune",
    "pictures_of",
    "tuned_images",
]
