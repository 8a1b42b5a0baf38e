"""What the protocol says of each set of captions: counts, where a copy may lie, and how to come by one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from toolkit.data.convert.prompts import simple

VISUAL_GENOME = ("aro/images", "visual_genome/images", "images")
COCO_INDEX = "caption_datasets.zip of https://cs.stanford.edu/people/karpathy/deepimagesent/ (Karpathy's splits)"


@dataclass(frozen=True)
class Known:
    """One set."""

    name: str
    title: str
    task: Literal["retrieval", "compositionality"]
    metric: str
    also: tuple[str, ...]
    """Other names it goes by, for words and folders."""
    samples: int
    """Pictures (retrieval) or cases (compositionality) of its test split."""
    index: str
    """The file of captions; for SugarCrepe one per part, with {} for the part."""
    containers: tuple[str, ...]
    """Where its pictures may lie below the folder of data: folders, or `x.zip@folder inside`; {} is COCO's `filepath`."""
    source: str
    licence: str
    get: str
    captions_each: int = 0
    """Captions of each picture, in retrieval: the first ones count where a picture has more."""
    parts: dict[str, int] = field(default_factory=dict)
    """Cases of each part, where the parts are the set's own files."""
    files: tuple[str, ...] = ()
    """What a copy consists of, relative to the folder of data."""

    @property
    def words(self) -> list[str]:
        """The names it goes by."""
        return [self.name, *self.also]

    def how_to_get(self) -> str:
        """What a user without the set can do."""
        return f"{self.get} Source: {self.source} (licence: {self.licence})"


KNOWN = {
    known.name: known
    for known in (
        Known(
            "flickr30k",
            "Flickr30k, Karpathy's test split",
            "retrieval",
            "recall",
            ("flickr-30k", "flickr30k-karpathy"),
            1000,
            "dataset_flickr30k.json",
            (
                *(f"flickr30k/{name}" for name in ("flickr30k-images", "flickr30k_images", "images", "Images")),
                "flickr30k/flickr30k-images.zip@flickr30k-images",
                "flickr30k-images",
                "flickr30k_images",
                "flickr30k",
            ),
            "https://shannon.cs.illinois.edu/DenotationGraph/",
            "non-commercial research and education; the pictures belong to their photographers on Flickr",
            f"Ask its authors for the pictures (flickr30k-images); captions and splits are in {COCO_INDEX}.",
            captions_each=5,
            files=("flickr30k/dataset_flickr30k.json", "flickr30k/flickr30k-images/*.jpg"),
        ),
        Known(
            "coco",
            "COCO captions, Karpathy's test split",
            "retrieval",
            "recall",
            ("mscoco", "coco-captions", "coco-karpathy", "ms-coco"),
            5000,
            "dataset_coco.json",
            (
                *("coco/{}", "coco/images/{}", "mscoco/{}", "{}", "images/{}"),
                *("coco/{}.zip@{}", "coco/images/{}.zip@{}", "mscoco/{}.zip@{}", "{}.zip@{}"),
            ),
            "https://cocodataset.org/#download",
            "captions CC BY 4.0; the pictures belong to their photographers on Flickr",
            f"Fetch val2014.zip (6 GB; it may stay packed); captions and splits are in {COCO_INDEX}.",
            captions_each=5,
            files=("coco/dataset_coco.json", "coco/val2014/*.jpg"),
        ),
        Known(
            "sugar-crepe",
            "SugarCrepe",
            "compositionality",
            "accuracy",
            ("sugarcrepe",),
            7511,
            "{}.json",
            (
                *("coco/val2017", "coco/images/val2017", "mscoco/val2017", "val2017"),
                *("sugar-crepe/images", "sugar-crepe/val2017", "sugarcrepe/images", "sugar_crepe/images"),
                *("coco/val2017.zip@val2017", "val2017.zip@val2017"),
            ),
            "https://github.com/RAIVNLab/sugar-crepe",
            "captions MIT; pictures as COCO's",
            "Copy the seven files of its folder data; the pictures are COCO's val2017.zip (1 GB; it may stay packed).",
            parts={
                "add_att": 692,
                "add_obj": 2062,
                "replace_att": 788,
                "replace_obj": 1652,
                "replace_rel": 1406,
                "swap_att": 666,
                "swap_obj": 245,
            },
            files=(
                "sugar-crepe/{add_att,add_obj,replace_att,replace_obj,replace_rel,swap_att,swap_obj}.json",
                "coco/val2017/*.jpg",
            ),
        ),
        *(
            Known(
                f"aro-{what}",
                f"ARO, Visual Genome {what.capitalize()}",
                "compositionality",
                "accuracy",
                (f"vg-{what}", f"visual-genome-{what}", f"aro-vg-{what}"),
                samples,
                f"visual_genome_{what}.json",
                VISUAL_GENOME,
                "https://github.com/mertyg/vision-language-models-are-bows",
                "annotations MIT; pictures as Visual Genome's (CC BY 4.0)",
                "The addresses of the annotations and of the pictures (vgr_vga_images.zip, 1 GB) stand in its dataset_zoo.",
                files=(f"aro/visual_genome_{what}.json", "aro/images/*.jpg"),
            )
            for what, samples in (("relation", 23937), ("attribution", 28748))
        ),
    )
}
"""By name: retrieval first."""


def known_of(word: str) -> Known | None:
    """The set a word names, spelling aside, or None."""
    return next((known for known in KNOWN.values() if simple(word) in map(simple, known.words)), None)


def index_places(known: Known, data: Path, file: str) -> list[Path]:
    """Where a file of captions may lie, the likeliest first."""
    own = [name for word in known.words for name in dict.fromkeys((word, word.replace("-", "_")))]
    own += ["aro"] if known.name.startswith("aro-") else []
    folders = [
        *own,
        *(f"{name}/{inside}" for name in own for inside in ("data", "annotations", "karpathy")),
        "karpathy",
        "",
    ]
    return [data / folder / file for folder in folders]
