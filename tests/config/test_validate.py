"""Every contradiction that the config refuses, and that each message says what to do."""

from dataclasses import replace

import pytest

from toolkit.config import FIELD_PRESETS, Data, EvalSet, Evaluation, Run, Student, Teacher, resolve
from toolkit.config.losses import OPTIONS, VL, Contrastive
from toolkit.config.validate import NEEDS
from toolkit.errors import ConfigError

GOOD = Run(
    out_dir="runs/x",
    student=Student(name="ViT-B-32"),
    teacher=Teacher(name="ViT-L-14"),
    losses={"vl": VL()},
    data=Data(images="i", texts="t"),
    evaluation=Evaluation(sets={"mine": EvalSet(shards="s", classes="c")}),
)
PAIRED = replace(
    GOOD,
    student=Student(name="ViT-B-32", text_tower=True),
    losses={"contrastive": Contrastive()},
    data=Data(pairs="p"),
)

CONTRADICTIONS = {
    "extra_teachers.b.name=ViT-B-32": "extra_teachers is set and no loss takes several teachers; add one of ensemble_kl",
    "losses.ensemble_kl.weight=1 extra_teachers.b.image_size=224": "extra_teachers.b.name is not set",
    "losses.ensemble_kl.weight=1 extra_teachers.b.name=B extra_teachers.b.in_memory=false": "extra_teachers.b.in_memory=false",
    "teacher.in_memory=false": "teacher.in_memory=false trains from stored embeddings and teacher.store is not set",
    "losses.ensemble_kl.weight=1 losses.ensemble_kl.scales=[70,60]": "losses.ensemble_kl.scales has 2 entries and the run 1",
    "out_dir=''": "out_dir is not set; give the folder of the run",
    "student.name=''": "student.name is not set; give an open_clip architecture",
    "losses.vl.weight=0": "losses: no term has a weight above 0",
    "data.images=''": "data.images is not set; give the image shards",
    "data.texts=''": "data.texts is not set and losses.vl compares with sentences",
    "steps=0": "steps (0) must be at least 1",
    "data.global_batch_size=0": "data.global_batch_size (0) must be at least 1",
    "data.text_batch_size=0": "data.text_batch_size (0) must be at least 1",
    "data.batch_size_per_gpu=0": "data.batch_size_per_gpu (0) must be at least 1",
    "data.shuffle_shards=0": "data.shuffle_shards (0) must be at least 1",
    "logging.every_steps=0": "logging.every_steps (0) must be at least 1",
    "evaluation.batch_size=0": "evaluation.batch_size (0) must be at least 1",
    "evaluation.sets.mine.max_samples=0": "evaluation.sets.mine.max_samples (0) must be at least 1",
    "checkpoint.keep_last=0": "checkpoint.keep_last (0) must be at least 1",
    "stop_at_step=0": "stop_at_step (0) must be at least 1",
    "optim.warmup_steps=-1": "optim.warmup_steps (-1) must not be negative",
    "optim.weight_decay=-0.1": "optim.weight_decay (-0.1) must not be negative",
    "optim.gradient_clipping=-1": "optim.gradient_clipping (-1.0) must not be negative",
    "optim.warmup_lr=-1": "optim.warmup_lr (-1.0) must not be negative",
    "optim.min_lr=-1": "optim.min_lr (-1.0) must not be negative",
    "checkpoint.every_steps=-1": "checkpoint.every_steps (-1) must not be negative",
    "evaluation.every_steps=-1": "evaluation.every_steps (-1) must not be negative",
    "workers=-1": "workers (-1) must not be negative",
    "seed=-1": "seed (-1) must not be negative",
    "losses.vl.weight=-1": "losses.vl.weight (-1.0) must not be negative",
    "losses.vl.scale=0": "losses.vl.scale (0.0) must be above 0",
    "losses.vl.temperature=-2": "losses.vl.temperature (-2.0) must be above 0",
    "steps=5000 optim.warmup_steps=9000": "optim.warmup_steps (9000) must be below steps (5000); lower it or raise steps",
    "steps=5000 optim.warmup_steps=5000": "optim.warmup_steps (5000) must be below steps (5000)",
    "optim.min_lr=1": "optim.min_lr (1.0) must not be above optim.lr (0.0008)",
    "optim.lr=nan": "optim.min_lr (4e-05) must not be above optim.lr (nan)",
    "data.augmentation.crop_scale=[0,1]": "data.augmentation.crop_scale (0.0, 1.0) must be two fractions",
    "data.augmentation.crop_scale=[0.9,0.5]": "data.augmentation.crop_scale (0.9, 0.5) must be two fractions in rising order",
    "data.augmentation.crop_scale=[0.5,2]": "data.augmentation.crop_scale (0.5, 2.0) must be two fractions",
    "data.augmentation.crop_ratio=[0,1]": "data.augmentation.crop_ratio (0.0, 1.0) must be two ratios",
    "data.augmentation.crop_ratio=[2,1]": "data.augmentation.crop_ratio (2.0, 1.0) must be two ratios in rising order",
    "data.max_skip_fraction=1.5": "data.max_skip_fraction (1.5) must lie between 0 and 1",
    "data.augmentation.flip_fraction=-0.5": "data.augmentation.flip_fraction (-0.5) must lie between 0 and 1",
    "teacher.name=''": "losses.vl needs a teacher; set teacher.name",
    "losses.contrastive.weight=1": "losses.contrastive needs images with their own captions; set data.pairs",
    "losses.c.kind=contrastive": "losses.c needs a student text tower; set student.text_tower=true",
    "losses.feature.mode=both": "losses.feature needs a student text tower",
    "data.pairs=p": "data.pairs and data.images/data.texts are both set",
    "student.text_tower=true losses.vl.weight=0 losses.pvl.weight=1": "student.text_tower=true and no loss trains it",
    "losses.crd.weight=1 data.texts=''": "data.texts is not set and losses.crd compares with sentences",
    "losses.crd.weight=0 losses.crd.final_weight=1 data.texts=''": "data.texts is not set and losses.crd compares",
    "losses.icl.weight=1": "losses.icl needs images with their own captions; set data.pairs",
    "losses.gd.weight=1": "losses.gd needs a student text tower; set student.text_tower=true",
    "losses.cross_kd.weight=1": "losses.cross_kd needs a student text tower; set student.text_tower=true",
    "losses.fd.mode=both": "losses.fd needs a student text tower",
    "losses.fd.mode=both data.texts='' losses.vl.weight=0": "data.texts is not set and losses.fd compares with sentences",
    "losses.dual_head.weight=1": "losses.dual_head.classes is not set; give a JSON file with classnames and templates",
    "losses.affinity.scale=-1": "losses.affinity.scale (-1.0) must be above 0",
    "losses.icl.initial_scale=0": "losses.icl.initial_scale (0.0) must be above 0",
    "losses.ensemble_kl.scales=[70,0]": "losses.ensemble_kl.scales (70.0, 0.0) must all be above 0",
    "losses.queue_pvl.size=0": "losses.queue_pvl.size (0) must be at least 1",
    "losses.cos_smooth_l1.beta=-1": "losses.cos_smooth_l1.beta (-1.0) must not be negative",
    "losses.cos_smooth_l1.momentum=2": "losses.cos_smooth_l1.momentum (2.0) must lie between 0 and 1",
    "losses.mfd.mask_fraction=-0.1": "losses.mfd.mask_fraction (-0.1) must lie between 0 and 1",
    "evaluation.sets.mine.shards=''": "evaluation.sets.mine.shards is not set",
    "evaluation.sets.mine.classes=''": "evaluation.sets.mine.classes is not set",
    "evaluation.best=mine_top1": "evaluation.best is set and evaluation.every_steps is 0",
}


@pytest.mark.parametrize("overrides", CONTRADICTIONS)
def test_a_contradiction_is_refused(overrides: str) -> None:
    """One line with the setting and its value."""
    with pytest.raises(ConfigError) as caught:
        resolve(GOOD, overrides.split(" "))
    assert any(line.startswith(CONTRADICTIONS[overrides]) for line in str(caught.value).split("\n"))


@pytest.mark.parametrize("name", sorted(name for name, needs in NEEDS.items() if "teacher" in needs))
def test_imitating_losses_need_a_teacher(name: str) -> None:
    """Also on pairs; contrastive does not."""
    term = replace(OPTIONS[name](), weight=1.0)
    alone = replace(PAIRED, teacher=Teacher(), losses={name: term})
    with pytest.raises(ConfigError, match=f"losses.{name} needs a teacher"):
        resolve(alone)
    assert resolve(replace(alone, losses={"contrastive": Contrastive()}))


@pytest.mark.parametrize(
    "term",
    [
        "vl",
        "crd",
        "affinity",
        "open_clip_distil",
        "ensemble_kl",
        "cross_kd",
        "siglip_soft",
        "fd.mode=both",
        "feature.mode=both",
    ],
)
def test_a_text_tower_without_pairs(term: str) -> None:
    """Where a loss compares the student's sentences with the teacher's, whichever picture they belong to."""
    name, _, mode = term.partition(".")
    overrides = [f"losses.{name}.weight=1", *([f"losses.{term}"] if mode else [])]
    assert resolve(replace(GOOD, losses={}), ["student.text_tower=true", *overrides])


def test_one_complaint_about_missing_pairs() -> None:
    """They bring their sentences: data.texts is not what is missing."""
    with pytest.raises(ConfigError) as caught:
        resolve(replace(GOOD, losses={}), ["losses.icl.weight=1", "student.text_tower=true", "data.texts=''"])
    assert str(caught.value) == "losses.icl needs images with their own captions; set data.pairs"


@pytest.mark.parametrize("preset", FIELD_PRESETS)
def test_presets_resolve(preset: str) -> None:
    """On pairs with a text tower, which all of them can use; without pairs where they need none."""
    terms = dict(FIELD_PRESETS[preset])
    assert resolve(replace(PAIRED, losses=terms)).losses == terms
    needs = set().union(*(NEEDS[term.kind] for term in terms.values() if term.weight))
    if not needs & {"pairs", "student_text"}:
        assert resolve(replace(GOOD, losses=terms)).losses == terms


ACCEPTED = [
    (GOOD, ""),
    (GOOD, "losses.vl.weight=0 losses.pvl.weight=1 data.texts=''"),
    (GOOD, "optim.warmup_steps=0 steps=1"),
    (GOOD, "evaluation.best=mine_top1 evaluation.every_steps=10"),
    (GOOD, "evaluation.sets.mine.kind=retrieval evaluation.sets.mine.classes=''"),
    (GOOD, "data.images='' data.texts='' dry_run=true"),
    (GOOD, "losses.contrastive.weight=0"),
    (GOOD, "data.augmentation.crop_scale=[1,1] data.augmentation.crop_ratio=[1,1] data.augmentation.flip_fraction=1"),
    (GOOD, "data.max_skip_fraction=0 optim.min_lr=8e-4"),
    (PAIRED, ""),
    (PAIRED, "losses.vl.weight=1 losses.feature.mode=both"),
    (PAIRED, "teacher.name=''"),
    (PAIRED, "losses.icl.weight=1 losses.gd.weight=1 losses.afd.weight=1 losses.mfd.weight=1"),
    (GOOD, "losses.dual_head.classes=classes.json"),
    (GOOD, "losses.vl.scale=null losses.affinity.scale=null losses.siglip_soft.bias=-12"),
    (GOOD, "losses.ensemble_kl.scales=[70,60] extra_teachers.b.name=ViT-B-32"),
    (GOOD, "losses.cos_smooth_l1.beta=0 losses.cos_smooth_l1.standardise=none"),
]


@pytest.mark.parametrize(("run", "overrides"), ACCEPTED)
def test_what_is_allowed(run: Run, overrides: str) -> None:
    """The edges of the rules above."""
    assert resolve(run, overrides.split())


def test_all_contradictions_are_told_at_once() -> None:
    """One line each, so that a run is not started five times to find five mistakes."""
    with pytest.raises(ConfigError) as caught:
        resolve(GOOD, ["steps=0", "workers=-1", "out_dir=''"])
    lines = str(caught.value).split("\n")
    assert len(lines) >= 3 and any("out_dir" in line for line in lines) and any("workers" in line for line in lines)
