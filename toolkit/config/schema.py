"""The run config: method (what may change the result), speed (what may not), orchestration (where and when)."""

from dataclasses import dataclass, field
from typing import Any, Literal

from toolkit.config.losses import LossOptions


@dataclass(frozen=True)
class Student:
    """The model that is trained."""

    name: str = ""
    """open_clip architecture, `timm/<name>`, or `package.module:function`."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Handed to the timm model or to your function."""
    embed_dim: int | None = None
    """Width of its embeddings; null: the teacher's."""
    text_tower: bool = False
    """Train a text tower too (paired losses); off: sentences go through the teacher's."""
    tokenizer: str | None = None
    """open_clip name or path of a sentencepiece .model; null: the model's own, else the teacher's."""
    pretrained: str | None = None
    """A `student.safetensors` (or its checkpoint folder) to start from."""
    image_size: int | None = None
    """Side in pixels; null: the model's own."""
    grad_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""


@dataclass(frozen=True)
class Teacher:
    """The model that is imitated: frozen, with its own preprocessing and tokenizer."""

    name: str = ""
    """open_clip name, a checkpoint folder of this toolkit, or `package.module:function`; empty: no teacher."""
    pretrained: str = ""
    """open_clip tag, a weights file, or `random` (untrained weights, to try a set-up only)."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Handed to your function."""
    tokenizer: str | None = None
    """open_clip name or path of a sentencepiece .model; null: the model's own."""
    image_size: int | None = None
    """Side in pixels; null: the model's own."""
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """Its weights are cast once; auto follows `precision`."""
    store: str = ""
    """Folder of its embeddings, filled at the start where they are missing and read instead of running it each step."""
    in_memory: bool = True
    """false: train from `store` alone, which must be complete; the teacher is loaded for evaluations only."""


@dataclass(frozen=True)
class Augmentation:
    """The student's random view of a picture (the paper's: crop 0.08-1, flip)."""

    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Area of RandomResizedCrop, as fractions; [1, 1] with ratio [1, 1] gives the plain view."""
    crop_ratio: tuple[float, float] = (0.75, 1.3333333333333333)
    """Width over height of the crop."""
    flip_fraction: float = 0.5
    """Share of pictures mirrored left to right."""


@dataclass(frozen=True)
class Source:
    """One of several sets of shards that are mixed by weight."""

    shards: str = ""
    """A brace pattern of paths or URLs, a folder, or several joined by `::`."""
    weight: float | None = None
    """Share of the batch, relative to the other sources'; null: as many as it has samples."""


@dataclass(frozen=True)
class Data:
    """What the model sees. Images and texts are two unpaired streams; `pairs` is the one paired stream."""

    images: str = ""
    """Shards of images: a brace pattern of paths or URLs, a folder, or several joined by `::`."""
    texts: str = ""
    """Shards of sentences, unrelated to the images."""
    pairs: str = ""
    """Shards of images with their captions, for losses that need pairs; instead of images and texts."""
    image_sources: dict[str, Source] = field(default_factory=dict)
    """Several sets of images by a name of yours, mixed by weight; instead of `images`."""
    text_sources: dict[str, Source] = field(default_factory=dict)
    """The same for sentences; instead of `texts`."""
    sampling: Literal["permuted", "resampled"] = "permuted"
    """permuted: every sample once per pass. resampled: drawn with replacement, for data too large to be seen twice."""
    global_batch_size: int = 12288
    """Images per step over all ranks: what the losses see."""
    text_batch_size: int | None = None
    """Sentences per step over all ranks; null: the same number as images."""
    batch_size_per_gpu: int | None = None
    """Images per rank and micro-batch; null: global_batch_size / ranks. Smaller: accumulation, less memory."""
    accumulation: Literal["global_batch", "per_micro_batch"] = "global_batch"
    """global_batch: losses see the whole batch through accumulation (one more forward). per_micro_batch: they compare
    each micro-batch with itself over the ranks, which is another loss, that of a smaller batch."""
    image_key: str = "jpg;jpeg;png;webp"
    """Fields that may hold the picture, in order of preference."""
    text_key: str = "txt"
    """Field that holds the sentence (UTF-8)."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    teacher_view: Literal["plain", "same"] = "plain"
    """Does the teacher see the plain picture (the paper) or the student's crop."""
    shuffle_shards: int = 16
    """Samples are shuffled inside windows of this many shards, shards over the whole set."""
    max_skip_fraction: float = 0.1
    """Undecodable or missing samples are replaced and counted; above this share the run stops."""
    max_image_pixels: int = 89_478_485
    """Larger pictures are skipped before they are decoded."""
    cache_dir: str = ""
    """Folder for copies of shards given as URLs, on a disk of the node; empty: `~/.cache/dime/shards` (XDG_CACHE_HOME)."""
    cache_gigabytes: float = 50.0
    """What these copies may take together (10^9 bytes); those used longest ago are removed first."""


@dataclass(frozen=True)
class Optim:
    """AdamW with the paper's decay groups, linear warm-up, cosine at the absolute step down to a floor."""

    lr: float = 8e-4
    """Peak; reached at the end of warm-up, not scaled with the batch."""
    warmup_lr: float = 4e-6
    """Learning rate of step 0."""
    min_lr: float = 4e-5
    """Floor at the last step."""
    warmup_steps: int = 12_992
    weight_decay: float = 0.05
    """Not on 1-D tensors, biases and position or token embeddings."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    gradient_clipping: float = 0.0
    """Norm to clip at; 0: no clipping (the paper)."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """sgd (no momentum) shows wrong gradient scales that AdamW hides: for tests."""


@dataclass(frozen=True)
class Checkpoint:
    """When to save and what to keep."""

    every_steps: int = 1000
    """0: only at the end."""
    keep_last: int = 3
    """Older ones are removed, except the best and those of `keep_every_steps`."""
    keep_every_steps: int = 0
    """Those at a multiple of it are kept for good; 0: none."""
    background: bool = True
    """Write while training goes on: a step waits for a copy to host memory only."""


@dataclass(frozen=True)
class Faults:
    """What a run does when a number is none, and when it takes itself for hung or slow."""

    nonfinite: Literal["stop", "skip"] = "stop"
    """What a loss or gradient that is not finite does: stop the run before the update, or leave that update out and count it."""
    nonfinite_limit: int = 10
    """So many such steps in a row stop the run, with skip too."""
    hang_seconds: float = 600.0
    """A step's phase that takes longer ends the run with the stacks of all ranks (six times as long for the set-up, an
    evaluation or a checkpoint); 0: never."""
    slow_fraction: float = 0.25
    """A rank that holds up the others by more than this share of a step is named at the next log line."""


@dataclass(frozen=True)
class Logging:
    """What is written while training."""

    every_steps: int = 50
    tensorboard: bool = True
    wandb_project: str | None = None
    """Set to log to Weights & Biases too (needs the `wandb` extra)."""


@dataclass(frozen=True)
class EvalSet:
    """One labelled or paired set of shards to judge on."""

    shards: str = ""
    kind: Literal["classification", "retrieval"] = "classification"
    """classification: image + `cls`; retrieval: image + caption."""
    classes: str = ""
    """JSON with `classnames`, `templates` and optional `groups` {name: [class numbers]}."""
    max_samples: int | None = None
    """Judge on the first so many; null: all."""


@dataclass(frozen=True)
class Evaluation:
    """Zero-shot, retrieval and agreement, during training and at its end."""

    every_steps: int = 0
    """0: only at the end."""
    batch_size: int = 256
    """Images per rank and forward."""
    sets: dict[str, EvalSet] = field(default_factory=dict)
    best: str = ""
    """Metric that picks the best checkpoint, such as `scenes_top1`; empty: none is kept for being best."""


@dataclass(frozen=True)
class Run:
    """A run. First method, then speed, then orchestration."""

    # --- method: what may change the result
    student: Student = field(default_factory=Student)
    teacher: Teacher = field(default_factory=Teacher)
    extra_teachers: dict[str, Teacher] = field(default_factory=dict)
    """Further teachers by a name of yours, for losses that take an ensemble; `teacher` stays the main one."""
    losses: dict[str, LossOptions] = field(default_factory=dict)
    """Terms by name; `losses.<name>.weight=0` switches one off."""
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    steps: int = 324_800
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "bf16"
    """bf16: autocast over fp32 parameters; losses are computed in fp32 either way."""

    # --- speed: must leave the loss curve alone
    deepspeed: str = "ds_configs/zero1.json"
    """Speed and memory settings of DeepSpeed: a path, or the name of a shipped file."""
    compile: bool = False
    """torch.compile the student's towers."""
    workers: int = 4
    """Data processes per rank; 0: in the training process."""

    # --- orchestration: where and when
    out_dir: str = ""
    stop_at_step: int | None = None
    """End this launch after that many steps, with a checkpoint; the schedule still spans `steps`."""
    max_hours: float | None = None
    """End this launch with a checkpoint after so many hours; null: when it is done, or the job's time limit is near."""
    time_margin_seconds: float = 300.0
    """How long before the job's time limit (DIME_JOB_END) to save and stop when no signal came."""
    faults: Faults = field(default_factory=Faults)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    logging: Logging = field(default_factory=Logging)
    evaluation: Evaluation = field(default_factory=Evaluation)
    dry_run: bool = False
    """Print the resolved config and the batch in words, then stop (also `--dry-run`)."""


METHOD_KEYS = ("student", "teacher", "extra_teachers", "losses", "data", "optim", "seed", "precision")
"""Sections that must agree when a run is resumed (`steps` may grow, the rest may change freely)."""
