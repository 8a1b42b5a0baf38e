"""Contradictions inside a run, found before anything is built."""

from collections.abc import Iterator

from toolkit.config.schema import Run
from toolkit.errors import ConfigError

NEEDS = {
    "vl": {"teacher"},
    "pvl": {"teacher"},
    "udist": {"teacher"},
    "feature": {"teacher"},
    "contrastive": {"pairs", "student_text"},
}
"""What each kind of loss cannot do without; the loss classes declare the same, a test compares the two."""


def validate(run: Run) -> None:
    """Raise ConfigError with every contradiction found, one per line."""
    problems = [*missing_settings(run), *wrong_numbers(run), *loss_needs(run)]
    if problems:
        raise ConfigError("\n".join(problems))


def missing_settings(run: Run) -> Iterator[str]:
    """Settings without which no run can start."""
    if not run.out_dir:
        yield "out_dir is not set; give the folder of the run, for example out_dir=runs/first"
    if not run.student.name:
        yield "student.name is not set; give an open_clip architecture, timm/<name> or package.module:function"
    if not any(term.weight for term in run.losses.values()):
        yield "losses: no term has a weight above 0, nothing would be learnt; set for example losses.vl.weight=0.7"
    if not run.dry_run and not run.data.pairs and not run.data.images:
        yield "data.images is not set; give the image shards, for example data.images='shards/images/{00000..01023}.tar'"


def wrong_numbers(run: Run) -> Iterator[str]:
    """Numbers out of range or out of order."""
    optim, data = run.optim, run.data
    positive = {
        "steps": run.steps,
        "data.global_batch_size": data.global_batch_size,
        "data.text_batch_size": data.text_batch_size,
        "data.batch_size_per_gpu": data.batch_size_per_gpu,
        "data.shuffle_shards": data.shuffle_shards,
        "logging.every_steps": run.logging.every_steps,
        "evaluation.batch_size": run.evaluation.batch_size,
        "checkpoint.keep_last": run.checkpoint.keep_last,
        "stop_at_step": run.stop_at_step,
        **{f"evaluation.sets.{name}.max_samples": chosen.max_samples for name, chosen in run.evaluation.sets.items()},
    }
    yield from (
        f"{key} ({value}) must be at least 1" for key, value in positive.items() if value is not None and value < 1
    )
    not_negative = {
        "optim.warmup_steps": optim.warmup_steps,
        "optim.weight_decay": optim.weight_decay,
        "optim.gradient_clipping": optim.gradient_clipping,
        "checkpoint.every_steps": run.checkpoint.every_steps,
        "evaluation.every_steps": run.evaluation.every_steps,
        "optim.warmup_lr": optim.warmup_lr,
        "optim.min_lr": optim.min_lr,
        "workers": run.workers,
        "seed": run.seed,
        **{f"losses.{name}.weight": term.weight for name, term in run.losses.items()},
    }
    yield from (f"{key} ({value}) must not be negative" for key, value in not_negative.items() if value < 0)
    for name, term in run.losses.items():
        for key in ("scale", "temperature"):
            if getattr(term, key, 1.0) <= 0:
                yield f"losses.{name}.{key} ({getattr(term, key)}) must be above 0"
    if optim.warmup_steps and optim.warmup_steps >= run.steps:
        yield f"optim.warmup_steps ({optim.warmup_steps}) must be below steps ({run.steps}); lower it or raise steps"
    if not optim.min_lr <= optim.lr:
        yield f"optim.min_lr ({optim.min_lr}) must not be above optim.lr ({optim.lr})"
    low, high = data.augmentation.crop_scale
    if not 0 < low <= high <= 1:
        yield f"data.augmentation.crop_scale ({low}, {high}) must be two fractions in rising order, above 0 and at most 1"
    narrow, wide = data.augmentation.crop_ratio
    if not 0 < narrow <= wide:
        yield f"data.augmentation.crop_ratio ({narrow}, {wide}) must be two ratios in rising order, above 0"
    for key, fraction in (
        ("data.max_skip_fraction", data.max_skip_fraction),
        ("data.augmentation.flip_fraction", data.augmentation.flip_fraction),
    ):
        if not 0 <= fraction <= 1:
            yield f"{key} ({fraction}) must lie between 0 and 1"


def loss_needs(run: Run) -> Iterator[str]:
    """Terms that ask for what the run does not supply, and data that contradicts itself."""
    has = {
        "teacher": bool(run.teacher.name),
        "pairs": bool(run.data.pairs) or run.dry_run,
        "student_text": run.student.text_tower,
    }
    cure = {
        "teacher": "a teacher; set teacher.name",
        "pairs": "images with their own captions; set data.pairs",
        "student_text": "a student text tower; set student.text_tower=true",
    }
    active = {name: term for name, term in run.losses.items() if term.weight}
    for name, term in active.items():
        needs = set(NEEDS[term.kind])
        if getattr(term, "mode", "") == "both":
            needs |= {"student_text"}
        yield from (f"losses.{name} needs {cure[need]}" for need in sorted(needs) if not has[need])
    if run.teacher.store and run.data.teacher_view == "same":
        yield "teacher.store holds embeddings of plain pictures and data.teacher_view=same needs those of crops; unset one"
    if run.data.pairs and (run.data.images or run.data.texts):
        yield "data.pairs and data.images/data.texts are both set; a run is paired or unpaired, keep one"
    wants_text = any(term.kind == "vl" for term in active.values())
    if wants_text and not run.dry_run and not run.data.pairs and not run.data.texts:
        yield "data.texts is not set and losses.vl compares with sentences; give the text shards, for example data.texts=shards/texts"
    if run.student.text_tower and not run.data.pairs and not run.dry_run:
        yield "student.text_tower=true is trained on pairs; set data.pairs, or leave the text side to the teacher"
    for name, chosen in run.evaluation.sets.items():
        if not chosen.shards:
            yield f"evaluation.sets.{name}.shards is not set; give its shards or leave the set out"
        if chosen.kind == "classification" and not chosen.classes:
            yield f"evaluation.sets.{name}.classes is not set; give a JSON file with classnames and templates"
    if run.evaluation.best and not run.evaluation.every_steps:
        yield "evaluation.best is set and evaluation.every_steps is 0, so nothing would be compared; set evaluation.every_steps"
