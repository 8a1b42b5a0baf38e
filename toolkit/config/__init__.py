"""Every setting of a run, checked before anything heavy is imported. This package imports no torch."""

from toolkit.config.arithmetic import Batch, batch_arithmetic, world_size_from_environment
from toolkit.config.losses import FIELD_PRESETS, LossOptions
from toolkit.config.preprocess import Preprocess
from toolkit.config.resolve import load, resolve, save, to_yaml
from toolkit.config.schema import (
    METHOD_KEYS,
    Augmentation,
    Checkpoint,
    Data,
    EvalSet,
    Evaluation,
    Faults,
    Logging,
    Optim,
    Run,
    Source,
    Student,
    Teacher,
)
from toolkit.config.sources import shards_of, sources_of

__all__ = [
    "FIELD_PRESETS",
    "METHOD_KEYS",
    "Augmentation",
    "Batch",
    "Checkpoint",
    "Data",
    "EvalSet",
    "Evaluation",
    "Faults",
    "Logging",
    "LossOptions",
    "Optim",
    "Preprocess",
    "Run",
    "Source",
    "Student",
    "Teacher",
    "batch_arithmetic",
    "load",
    "resolve",
    "save",
    "shards_of",
    "sources_of",
    "to_yaml",
    "world_size_from_environment",
]
