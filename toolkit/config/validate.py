"""Contradictions inside a run, found before anything is built."""

from collections.abc import Iterator

from toolkit.config.losses import LossOptions
from toolkit.config.schema import Run
from toolkit.config.sources import shards_of, source_problems
from toolkit.errors import ConfigError

INTERACTIVE = {"teacher", "pairs", "student_text", "text"}
NEEDS = {
    "vl": {"teacher", "text"},
    "pvl": {"teacher"},
    "udist": {"teacher"},
    "feature": {"teacher"},
    "contrastive": {"pairs", "student_text"},
    "fd": {"teacher"},
    "mfd": {"teacher", "masked_view"},
    "crd": {"teacher", "text"},
    "affinity": {"teacher", "text"},
    "open_clip_distil": {"teacher", "text"},
    "ensemble_kl": {"teacher", "text"},
    "icl": INTERACTIVE,
    "cross_kd": {"teacher", "student_text", "text"},
    "gd": INTERACTIVE,
    "afd": INTERACTIVE,
    "siglip_soft": {"teacher", "text"},
    "queue_pvl": {"teacher"},
    "cos_smooth_l1": {"teacher"},
    "phi_s": {"teacher"},
    "dual_head": {"teacher"},
}
"""What each kind of loss cannot do without; the loss classes declare the same, a test compares the two.

`text`: the teacher's embeddings of sentences. `masked_view` is made from the pictures, so that every run has it.
"""

ENSEMBLES = ("ensemble_kl",)
"""Losses that take several teachers."""
COMPLAINTS = {
    "teacher": "losses.{name} needs a teacher; set teacher.name",
    "pairs": "losses.{name} needs images with their own captions; set data.pairs",
    "student_text": "losses.{name} needs a student text tower; set student.text_tower=true",
    "text": "data.texts is not set and losses.{name} compares with sentences; give the text shards, "
    "for example data.texts=shards/texts",
}
"""What is said where a need is not met."""


def validate(run: Run) -> None:
    """Raise ConfigError with every contradiction found, one per line."""
    problems = [
        *missing_settings(run),
        *wrong_numbers(run),
        *loss_numbers(run),
        *loss_needs(run),
        *source_problems(run),
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def missing_settings(run: Run) -> Iterator[str]:
    """Settings without which no run can start."""
    if not run.out_dir:
        yield "out_dir is not set; give the folder of the run, for example out_dir=runs/first"
    if not run.student.name:
        yield "student.name is not set; give an open_clip architecture, timm/<name> or package.module:function"
    if not any(term.weight or term.final_weight for term in run.losses.values()):
        yield "losses: no term has a weight above 0, nothing would be learnt; set for example losses.vl.weight=0.7"
    if not run.dry_run and not run.data.pairs and not shards_of(run.data, "images"):
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
        "faults.nonfinite_limit": run.faults.nonfinite_limit,
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
        "checkpoint.keep_every_steps": run.checkpoint.keep_every_steps,
        "faults.hang_seconds": run.faults.hang_seconds,
        "faults.slow_fraction": run.faults.slow_fraction,
        "time_margin_seconds": run.time_margin_seconds,
        "evaluation.every_steps": run.evaluation.every_steps,
        "optim.warmup_lr": optim.warmup_lr,
        "optim.min_lr": optim.min_lr,
        "workers": run.workers,
        "seed": run.seed,
        **{f"losses.{name}.weight": term.weight for name, term in run.losses.items()},
    }
    yield from (f"{key} ({value}) must not be negative" for key, value in not_negative.items() if value < 0)
    if run.max_hours is not None and not run.max_hours > 0:
        yield f"max_hours ({run.max_hours}) must be above 0, or null for no limit"
    if not data.cache_gigabytes > 0:
        yield f"data.cache_gigabytes ({data.cache_gigabytes}) must be above 0, and hold the shards that are read at one time"
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


def loss_numbers(run: Run) -> Iterator[str]:
    """Options of losses out of range."""
    for name, term in run.losses.items():
        options = {key: value for key, value in vars(term).items() if value is not None}
        for key, value in options.items():
            if key in ("scale", "temperature", "initial_scale") and value <= 0:
                yield f"losses.{name}.{key} ({value}) must be above 0"
            if key == "scales" and any(scale <= 0 for scale in value):
                yield f"losses.{name}.{key} ({', '.join(map(str, value))}) must all be above 0"
            if key == "size" and value < 1:
                yield f"losses.{name}.{key} ({value}) must be at least 1"
            if key in ("beta", "cosine_weight", "l1_weight") and value < 0:
                yield f"losses.{name}.{key} ({value}) must not be negative"
            if key in ("mask_fraction", "momentum") and not 0 <= value <= 1:
                yield f"losses.{name}.{key} ({value}) must lie between 0 and 1"


def loss_needs(run: Run) -> Iterator[str]:
    """Terms that ask for what the run does not supply, and data that contradicts itself."""
    has = {
        "teacher": bool(run.teacher.name),
        "pairs": bool(run.data.pairs) or run.dry_run,
        "student_text": run.student.text_tower,
        "text": bool(shards_of(run.data, "texts")) or bool(run.data.pairs) or run.dry_run,
        "masked_view": True,
    }
    active = {name: term for name, term in run.losses.items() if term.weight or term.final_weight}
    needs = {name: needs_of(term) for name, term in active.items()}
    for name, wanted in needs.items():
        missing = sorted(need for need in wanted if not has[need])
        if "pairs" in missing:  # they bring their sentences
            missing = [need for need in missing if need != "text"]
        yield from (COMPLAINTS[need].format(name=name) for need in missing)
        if getattr(active[name], "classes", None) == "":
            yield f"losses.{name}.classes is not set; give a JSON file with classnames and templates"
    yield from ensemble_needs(run, active)
    teachers = {
        "teacher": run.teacher,
        **{f"extra_teachers.{name}": extra for name, extra in run.extra_teachers.items()},
    }
    for key, teacher in teachers.items():
        if not teacher.in_memory and not teacher.store:
            yield f"{key}.in_memory=false trains from stored embeddings and {key}.store is not set; set it to the folder of its store"
    if run.data.pairs and (shards_of(run.data, "images") or shards_of(run.data, "texts")):
        yield "data.pairs and data.images/data.texts are both set; a run is paired or unpaired, keep one"
    trains_text = any("text" in wanted for wanted in needs.values())
    if run.student.text_tower and not trains_text and not run.data.pairs and not run.dry_run:
        yield (
            "student.text_tower=true and no loss trains it without pairs; set data.pairs, add a loss that compares sentences "
            "(vl, crd), or leave the text side to the teacher"
        )
    for name, chosen in run.evaluation.sets.items():
        if not chosen.shards:
            yield f"evaluation.sets.{name}.shards is not set; give its shards or leave the set out"
        if chosen.kind == "classification" and not chosen.classes:
            yield f"evaluation.sets.{name}.classes is not set; give a JSON file with classnames and templates"
    if run.evaluation.best and not run.evaluation.every_steps:
        yield "evaluation.best is set and evaluation.every_steps is 0, so nothing would be compared; set evaluation.every_steps"


def needs_of(term: LossOptions) -> set[str]:
    """What a term cannot do without, its options taken into account."""
    return NEEDS[term.kind] | ({"student_text", "text"} if getattr(term, "mode", "") == "both" else set())


def ensemble_needs(run: Run, active: dict[str, LossOptions]) -> Iterator[str]:
    """Several teachers want a loss that takes them, and each its name."""
    ensembles = {name: term for name, term in active.items() if term.kind in ENSEMBLES}
    if run.extra_teachers and not ensembles:
        yield f"extra_teachers is set and no loss takes several teachers; add one of {', '.join(ENSEMBLES)}, or leave them out"
    for key, chosen in run.extra_teachers.items():
        if not chosen.name:
            yield f"extra_teachers.{key}.name is not set; give an open_clip name, a checkpoint folder or package.module:function"
    for name, term in ensembles.items():
        scales = getattr(term, "scales", ())
        if scales and len(scales) != 1 + len(run.extra_teachers):
            yield (
                f"losses.{name}.scales has {len(scales)} entries and the run {1 + len(run.extra_teachers)} teachers; give one "
                "for each, the main one first"
            )
