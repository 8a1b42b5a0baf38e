"""What a user may say beside the recipe."""

from dataclasses import dataclass

from toolkit.errors import ConfigError

JPEG_BYTES_PER_PIXEL = {75: 0.196, 85: 0.280, 90: 0.379, 95: 0.571}
"""Of the photographs of benchmarks/data.py at 384 x 256 by JPEG quality; 90 is what its receipt measures (36 KiB)."""


@dataclass(frozen=True)
class Wishes:
    """Hardware, sizes of the data, and assumptions that may be replaced by something known."""

    hardware: str = "h100"
    gpus: int | None = None
    gpus_per_node: int | None = None
    mfu: float | None = None
    teacher_mfu: float | None = None
    images_per_second: float | None = None
    """Measured on one GPU with this run's models and micro-batch; replaces the compute model."""
    images: int | None = None
    """In the shards; None: sizes are given per million."""
    sentences: int | None = None
    short_side: int = 256
    jpeg_quality: int = 90
    views: int = 1
    """Crops per picture in the store; 1: the plain view."""
    cores_per_gpu: int | None = None
    """None: as many as are needed."""
    images_per_second_per_core: float | None = None
    pue: float = 1.2
    """Power of the building over that of its machines."""

    def __post_init__(self) -> None:
        """Raise ConfigError for numbers that make no sense."""
        positive = {
            "--images-per-second": self.images_per_second,
            "--images": self.images,
            "--sentences": self.sentences,
            "--short-side": self.short_side,
            "--views": self.views,
            "--cores-per-gpu": self.cores_per_gpu,
            "--images-per-second-per-core": self.images_per_second_per_core,
        }
        for option, value in positive.items():
            if value is not None and not value > 0:
                raise ConfigError(f"{option} ({value:g}) must be above 0")
        if not self.pue >= 1:
            raise ConfigError(
                f"--pue ({self.pue:g}) is the building's power over the machines', at least 1, such as 1.2"
            )
        if self.jpeg_quality not in JPEG_BYTES_PER_PIXEL:
            known = ", ".join(map(str, JPEG_BYTES_PER_PIXEL))
            raise ConfigError(f"--jpeg-quality {self.jpeg_quality} is not known; choose one of {known}")
