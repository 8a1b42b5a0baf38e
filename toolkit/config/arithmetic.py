"""From global batch, ranks and micro-batch to the number of accumulation steps, in numbers and in words."""

import os
from dataclasses import dataclass

from toolkit.config.schema import Run
from toolkit.errors import ConfigError


@dataclass(frozen=True)
class Batch:
    """How a step's batch is spread; every field counts samples except the last."""

    world_size: int
    images_per_rank: int
    texts_per_rank: int
    global_images: int
    global_texts: int
    grad_accum_steps: int

    def in_words(self) -> str:
        """One sentence for logs and `--dry-run`."""
        return (
            f"{self.global_images} images per step = {self.world_size} ranks x {self.images_per_rank} per rank "
            f"x {self.grad_accum_steps} accumulation steps, and {self.global_texts} sentences "
            f"= {self.world_size} ranks x {self.texts_per_rank}; losses compare {self.global_images} images "
            f"with {self.global_texts} sentences"
        )


def world_size_from_environment() -> int:
    """Ranks of this launch: WORLD_SIZE (launchers), else SLURM_NTASKS inside srun, else 1."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    if "SLURM_PROCID" in os.environ and "SLURM_STEP_ID" in os.environ:
        return int(os.environ.get("SLURM_NTASKS", "1"))
    return 1


def batch_arithmetic(run: Run, world_size: int) -> Batch:
    """Spread the batch over `world_size` ranks; raises ConfigError when it does not divide or needs accumulation."""
    data = run.data
    images = data.global_batch_size
    texts = images if data.text_batch_size is None else data.text_batch_size
    per_gpu = data.batch_size_per_gpu
    if per_gpu is None:
        if images % world_size:
            raise ConfigError(
                f"data.global_batch_size ({images}) does not divide by {world_size} ranks; "
                f"the nearest that does is {max(1, images // world_size) * world_size}"
            )
        per_gpu = images // world_size
    if images % (per_gpu * world_size):
        raise ConfigError(
            f"data.global_batch_size ({images}) must be a multiple of data.batch_size_per_gpu ({per_gpu}) "
            f"x {world_size} ranks = {per_gpu * world_size}; change one of the two"
        )
    grad_accum_steps = images // (per_gpu * world_size)
    if grad_accum_steps > 1:
        raise ConfigError(
            f"data.global_batch_size ({images}) over {world_size} ranks x data.batch_size_per_gpu ({per_gpu}) needs "
            f"{grad_accum_steps} accumulation steps, and the losses would then see only a part of the global batch; "
            f"set data.batch_size_per_gpu={images // world_size} or use "
            f"{grad_accum_steps} times the ranks (student.grad_checkpointing=true saves memory)"
        )
    if texts % world_size:
        raise ConfigError(
            f"data.text_batch_size ({texts}) does not divide by {world_size} ranks; round it to a multiple"
        )
    return Batch(world_size, per_gpu, texts // world_size, images, texts, grad_accum_steps)
