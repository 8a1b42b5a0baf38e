"""From batch and ranks to rows per rank."""

from dataclasses import replace

import pytest

from toolkit.config import Data, Run, batch_arithmetic, world_size_from_environment
from toolkit.errors import ConfigError


def spread(world: int, images: int, texts: int | None = None, per_gpu: int | None = None) -> tuple[int, ...]:
    """(images per rank, texts per rank, global images, global texts, accumulation)."""
    data = Data(global_batch_size=images, text_batch_size=texts, batch_size_per_gpu=per_gpu)
    found = batch_arithmetic(Run(data=data), world)
    assert found.world_size == world
    return (
        found.batch_size_per_gpu, found.text_batch_size_per_gpu, found.global_images, found.global_texts, found.grad_accum_steps
    )  # fmt: skip


@pytest.mark.parametrize(
    ("world", "images", "texts", "per_gpu", "expected"),
    [
        (1, 12, None, None, (12, 12, 12, 12, 1)),
        (24, 12288, None, None, (512, 512, 12288, 12288, 1)),
        (4, 12, 8, None, (3, 2, 12, 8, 1)),
        (4, 12, 20, 3, (3, 5, 12, 20, 1)),
    ],
)
def test_spread(world: int, images: int, texts: int | None, per_gpu: int | None, expected: tuple[int, ...]) -> None:
    """Sentences follow the images unless told otherwise."""
    assert spread(world, images, texts, per_gpu) == expected


def test_what_does_not_divide() -> None:
    """With a number that does."""
    with pytest.raises(ConfigError, match=r"global_batch_size \(100\) does not divide by 24 ranks; .* is 96"):
        spread(24, 100)
    with pytest.raises(ConfigError, match=r"global_batch_size \(3\) does not divide by 4 ranks; .* is 4"):
        spread(4, 3)
    with pytest.raises(ConfigError, match=r"text_batch_size \(10\) does not divide by 4 ranks"):
        spread(4, 12, texts=10)
    with pytest.raises(ConfigError, match=r"\(12\) must be a multiple of data.batch_size_per_gpu \(5\) x 2 ranks = 10"):
        spread(2, 12, per_gpu=5)
    with pytest.raises(ConfigError, match=r"\(12\) must be a multiple of .* \(12\) x 2 ranks = 24"):
        spread(2, 12, per_gpu=12)


def test_a_smaller_micro_batch_accumulates() -> None:
    """The losses still see all 24 images; sentences are spread over the same micro-batches."""
    assert spread(2, 24, per_gpu=3) == (3, 3, 24, 24, 4)
    assert spread(1, 12288, per_gpu=512) == (512, 512, 12288, 12288, 24)
    with pytest.raises(ConfigError, match=r"text_batch_size \(12\) .* 2 ranks x 4 accumulation steps; .* is 8"):
        spread(2, 24, texts=12, per_gpu=3)


def test_in_words() -> None:
    """What --dry-run and the log say."""
    run = replace(Run(), data=Data(global_batch_size=12, text_batch_size=8))
    words = batch_arithmetic(run, 4).in_words()
    assert "12 images per step = 4 ranks x 3 per rank x 1 accumulation steps" in words
    assert "8 sentences = 4 ranks x 2" in words and "compare 12 images with 8 sentences" in words


def test_world_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the launcher, of srun, else one; inside sbatch but outside srun SLURM_NTASKS does not count."""
    for name in ("WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    assert world_size_from_environment() == 1
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert world_size_from_environment() == 1
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert world_size_from_environment() == 8
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert world_size_from_environment() == 2
