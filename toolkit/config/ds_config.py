"""DeepSpeed's own file: what it may hold (speed and memory) and what belongs to the run."""

import json
from typing import Any

from toolkit.config.shipped import shipped
from toolkit.errors import ConfigError
from toolkit.registry import did_you_mean

OWNED_BY_RUN = {
    "train_batch_size": "data.global_batch_size",
    "train_micro_batch_size_per_gpu": "data.batch_size_per_gpu",
    "gradient_accumulation_steps": "data.batch_size_per_gpu",
    "gradient_clipping": "optim.gradient_clipping",
    "optimizer": "optim",
    "scheduler": "optim",
    "bf16": "precision",
    "fp16": "precision",
    "torch_autocast": "precision",
    "data_types": "precision",
    "steps_per_print": "logging.every_steps",
    "tensorboard": "logging.tensorboard",
    "wandb": "logging.wandb_project",
    "csv_monitor": "logging",
    "managed_gradient_accumulation": "the training loop",
}
"""Keys a ds_config may not hold, and the run setting that decides them."""
ALLOWED = (
    "zero_optimization",
    "zero_force_ds_cpu_optimizer",
    "communication_data_type",
    "comms_logger",
    "disable_python_gc",
    "memory_breakdown",
    "wall_clock_breakdown",
    "dump_state",
    "aio",
    "checkpoint",
)
"""Keys a ds_config may hold: speed and memory. DeepSpeed itself accepts a mistyped top-level key in silence."""


def load_ds_config(path: str) -> dict[str, Any]:
    """Read and check a ds_config; raises ConfigError for keys that the run owns, unknown ones, or no JSON."""
    found = shipped(path)
    if found is None or not found.is_file():
        raise ConfigError(f"deepspeed={path} is no file; shipped are {', '.join(shipped_ds_configs())}")
    try:
        content = json.loads(found.read_text())
    except ValueError as error:
        raise ConfigError(f"deepspeed={path} is not JSON ({error}); correct it") from error
    if not isinstance(content, dict) or not isinstance(content.get("zero_optimization", {}), dict):
        raise ConfigError(
            f"deepspeed={path} is no DeepSpeed config; it is a JSON object with zero_optimization: {{...}}"
        )
    for key in content:
        if key in OWNED_BY_RUN:
            raise ConfigError(
                f"{path} sets {key}, which belongs to the run ({OWNED_BY_RUN[key]}); remove it from {path}"
            )
        if key not in ALLOWED:
            raise ConfigError(
                f"{path}: no DeepSpeed setting {key!r} is allowed here{did_you_mean(key, ALLOWED)}; known: {', '.join(ALLOWED)}"
            )
    if content.get("zero_optimization", {}).get("overlap_comm"):
        raise ConfigError(
            f"{path} sets zero_optimization.overlap_comm, which has corrupted gradients in several releases; set it to false"
        )
    return dict(content)


def shipped_ds_configs() -> list[str]:
    """Names of the ds_configs that come with the toolkit."""
    folder = shipped("ds_configs")
    return sorted(f"ds_configs/{path.name}" for path in folder.glob("*.json")) if folder else []


def zero_stage(ds_config: dict[str, Any]) -> int:
    """ZeRO stage of a ds_config, 0 when it names none."""
    return int(ds_config.get("zero_optimization", {}).get("stage", 0))
