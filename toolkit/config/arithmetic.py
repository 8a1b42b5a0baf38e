"""From global batch, ranks and micro-batch to the number of accumulation steps, in numbers and in words."""

import os
from dataclasses import dataclass

from toolkit.config.schema import Run
from toolkit.errors import ConfigError


@dataclass(frozen=True)
class Batch:
    """How a step's batch is spread: a rank takes `grad_accum_steps` micro-batches of each stream."""

    world_size: int
    batch_size_per_gpu: int
    """Images per rank and micro-batch."""
    text_batch_size_per_gpu: int
    """Sentences per rank and micro-batch."""
    global_images: int
    global_texts: int
    grad_accum_steps: int

    def in_words(self) -> str:
        """One sentence for logs and `--dry-run`."""
        steps = f"x {self.grad_accum_steps} accumulation steps"
        return (
            f"{self.global_images} images per step = {self.world_size} ranks x {self.batch_size_per_gpu} per rank {steps}, "
            f"and {self.global_texts} sentences = {self.world_size} ranks x {self.text_batch_size_per_gpu} {steps}; "
            f"losses compare {self.global_images} images with {self.global_texts} sentences"
        )


def world_size_from_environment() -> int:
    """Ranks of this launch: WORLD_SIZE (launchers), else SLURM_NTASKS inside srun, else 1."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    if "SLURM_PROCID" in os.environ and "SLURM_STEP_ID" in os.environ:
        return int(os.environ.get("SLURM_NTASKS", "1"))
    return 1


def batch_arithmetic(run: Run, world_size: int) -> Batch:
    """Spread the batch over `world_size` ranks; raises ConfigError when it does not divide."""
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
    spread = world_size * grad_accum_steps
    if texts % spread:
        raise ConfigError(
            f"data.text_batch_size ({texts}) does not divide by {world_size} ranks x {grad_accum_steps} accumulation steps; "
            f"the nearest that does is {max(1, texts // spread) * spread}"
        )
    return Batch(world_size, per_gpu, texts // spread, images, texts, grad_accum_steps)
