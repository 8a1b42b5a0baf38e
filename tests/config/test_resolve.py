"""Overrides over defaults: what is accepted, and what the message says where it is not."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toolkit import config
from toolkit.config import Data, EvalSet, Evaluation, Run, Student, Teacher, resolve
from toolkit.config.losses import PVL, VL, Contrastive, Feature, UDist
from toolkit.config.resolve import differences
from toolkit.errors import ConfigError

GOOD = Run(
    out_dir="runs/x",
    student=Student(name="ViT-B-32-quickgelu"),
    teacher=Teacher(name="ViT-L-14-quickgelu", pretrained="openai"),
    losses=dict(config.FIELD_PRESETS["dimefm"]),
    data=Data(images="images", texts="texts"),
)


def said(*overrides: str, defaults: Run = GOOD) -> str:
    """The complaint about these overrides."""
    with pytest.raises(ConfigError) as caught:
        resolve(defaults, overrides)
    return str(caught.value)


def test_no_overrides_give_the_defaults() -> None:
    """Equal, tuples included."""
    assert resolve(GOOD) == GOOD


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("optim.lr=4e-4", "optim.lr", 4e-4),
        ("optim.lr=1", "optim.lr", 1.0),
        ("steps=100000", "steps", 100_000),
        ("compile=true", "compile", True),
        ("data.images=shards/{00000..01023}.tar", "data.images", "shards/{00000..01023}.tar"),
        ("data.images=a/{0..3}.tar::b", "data.images", "a/{0..3}.tar::b"),
        ('data.images="{0..3}.tar"', "data.images", "{0..3}.tar"),
        ("student.name=my.models:small", "student.name", "my.models:small"),
        ("student.kwargs.vision_cfg.layers=3", "student.kwargs", {"vision_cfg": {"layers": 3}}),
        ("data.augmentation.crop_scale=[0.5,1]", "data.augmentation.crop_scale", (0.5, 1.0)),
        ("data.text_batch_size=null", "data.text_batch_size", None),
        ("data.teacher_view=same", "data.teacher_view", "same"),
        ("evaluation.sets.mine.kind=retrieval evaluation.sets.mine.shards=x", "evaluation.sets.mine.kind", "retrieval"),
    ],
)
def test_overrides_reach_their_setting(override: str, path: str, value: Any) -> None:
    """With the type of the schema."""
    found: Any = resolve(GOOD, override.split(" "))
    for name in path.split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    assert found == value and type(found) is type(value)


def test_what_is_not_overridden_stays() -> None:
    """A group is merged, not replaced."""
    run = resolve(GOOD, ["optim.lr=1e-3", "losses.vl.temperature=2"])
    assert run.optim == replace(GOOD.optim, lr=1e-3)
    assert run.losses == {**GOOD.losses, "vl": replace(VL(), temperature=2.0)}
    assert list(run.losses) == ["vl", "pvl", "udist"]


def test_the_last_override_wins() -> None:
    """As on any command line."""
    assert resolve(GOOD, ["steps=20000", "steps=30000"]).steps == 30_000


def test_words_of_the_launcher() -> None:
    """--local_rank is dropped, --dry-run is short for dry_run=true."""
    assert resolve(GOOD, ["--local_rank=1", "--local-rank=0"]) == GOOD
    assert resolve(GOOD, ["--dry-run"]).dry_run


NEAR_MISSES = {
    "stps=3": "no setting named stps; did you mean steps?",
    "optim.lrr=3": "no setting named optim.lrr; did you mean optim.lr?",
    "studnet.name=x": "no setting named studnet; did you mean student?",
    "data.augmentation.crop_scal=[1,1]": "did you mean data.augmentation.crop_scale?",
    "data.global_batchsize=3": "did you mean data.global_batch_size?",
    "evaluation.sets.mine.shard=x": "did you mean evaluation.sets.mine.shards?",
    "losses.vl.temprature=2": "no setting named losses.vl.temprature; did you mean losses.vl.temperature?",
    "losses.udits.weight=1": "losses.udits: no loss named udits; did you mean udist?",
    "losses.mine.kind=fature": "losses.mine: no loss named fature; did you mean feature?",
}


@pytest.mark.parametrize("override", NEAR_MISSES)
def test_a_near_miss_names_what_was_meant(override: str) -> None:
    """The full path of the key, so that it can be pasted."""
    assert NEAR_MISSES[override] in said(override)


def test_nothing_near_lists_what_is_known() -> None:
    """Without a wild guess."""
    message = said("zzz=1")
    assert "did you mean" not in message and "known: student, teacher, extra_teachers, losses" in message


WRONG = {
    "steps=abc": "steps: Value 'abc'",
    "steps=5.5": "steps: Value '5.5'",
    "steps=true": "steps: Value 'True'",
    "steps=": "steps: Incompatible value 'None'",
    "steps.a=3": "steps: Value",
    "optim.lr=fast": "optim.lr: Value 'fast'",
    "compile=maybe": "compile: Value 'maybe'",
    "precision=fp16": "precision: Invalid value 'fp16', expected one of ['fp32', 'bf16']",
    "data.teacher_view=crop": "data.teacher_view: Invalid value 'crop'",
    "losses.vl.weight=heavy": "losses.vl.weight: Value 'heavy'",
    "losses.f.kind=feature losses.f.mode=text": "losses.f.mode: Invalid value 'text'",
    "data.augmentation.crop_scale=[1]": "data: TupleConfig length 1 does not match type hint length 2",
    "data.augmentation.crop_scale.0=1": "data: Cannot merge incompatible container types",
    "student=ViT-B-32": "student is a group of settings, found 'ViT-B-32'; set student.<name>=value",
    "losses=3": "losses is a group of terms, found 3; set losses.<name>.weight=value",
    "losses.vl=3": "losses.vl is a group of settings, found 3; set losses.vl.weight=value",
    "evaluation.sets.a=3": "evaluation.sets.a: Invalid type assigned",
    "student.name=${teacher}": "student.name: ",
    "steps": "'steps' is not an override; write key=value",
    "--steps=3": "'--steps=3' is not an override; write key=value",
    "data.images={00000..00003}.tar": "quote one that begins with a bracket",
    "steps=[1,2": "steps=[1,2 could not be read",
    "out_dir=${": "out_dir=${ could not be read",
}


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_value_is_a_config_error(override: str) -> None:
    """Naming the key; nothing a user can write on the command line gives a traceback."""
    message = said(*override.split(" "))
    assert WRONG[override] in message and "\n" not in message and "full_key" not in message


def test_losses_are_checked_by_their_kind() -> None:
    """The key is the user's; the kind picks the options, defaults to the key, and stays with a default of that key."""
    run = resolve(GOOD, ["losses.soft.kind=vl", "losses.soft.temperature=4", "losses.feature.weight=0.5"])
    assert run.losses["soft"] == replace(VL(), temperature=4.0)
    assert run.losses["feature"] == replace(Feature(), weight=0.5)
    named = replace(GOOD, losses={"main": PVL(weight=0.25)})
    assert resolve(named, ["losses.main.temperature=2"]).losses["main"] == PVL(weight=0.25, temperature=2.0)
    assert "no setting named losses.feature.temperature" in said("losses.feature.temperature=2")


def test_another_kind_under_a_default_key() -> None:
    """Takes the defaults of the new kind, not the numbers of the old one."""
    run = resolve(GOOD, ["losses.pvl.kind=udist", "losses.pvl.weight=0.1"])
    assert run.losses["pvl"] == UDist(weight=0.1)


def test_presets() -> None:
    """The released code's, and the other set found in the field."""
    for name, weights in (("dimefm", (0.7, 0.3, 0.0)), ("dimefm-udist", (0.68, 0.22, 0.10))):
        terms = config.FIELD_PRESETS[name]
        assert tuple(terms[key].weight for key in ("vl", "pvl", "udist")) == weights
        assert [(t.scale, t.temperature) for t in terms.values()] == [(100.0, 1.0), (100.0, 3.0), (100.0, 7.0)]  # type: ignore[attr-defined]


EVERYTHING = replace(
    GOOD,
    student=Student(name="my.module:net", kwargs={"width": 3, "deep": {"er": [1, 2]}, "name": "1e5"}),
    losses={"vl": VL(weight=0.1), "again": VL(temperature=3.0), "feature": Feature(mode="image")},
    evaluation=Evaluation(sets={"caf\u00e9": EvalSet(shards="a", kind="retrieval", max_samples=3)}),
    data=Data(images="a/{0..3}.tar::null", texts="b"),
)


def test_save_and_load(tmp_path: Path) -> None:
    """Equal, also where YAML could take a string for something else."""
    config.save(EVERYTHING, tmp_path / "config.yaml")
    assert config.load(tmp_path / "config.yaml") == EVERYTHING
    assert differences(config.load(tmp_path / "config.yaml"), EVERYTHING, list(vars(EVERYTHING))) == []


def test_killed_while_it_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is as it was: half of one would keep the run from going on."""
    config.save(GOOD, tmp_path / "config.yaml")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        config.save(EVERYTHING, tmp_path / "config.yaml")
    assert config.load(tmp_path / "config.yaml") == GOOD


@pytest.mark.parametrize("content", ["", "- 3", "a: [", "stps: 3", "steps: many"])
def test_a_torn_config_file_is_a_config_error(content: str, tmp_path: Path) -> None:
    """Never a YAML traceback."""
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ConfigError):
        config.load(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="could not be read as a run config"):
        config.load(tmp_path / "missing.yaml")


def test_differences_are_dotted() -> None:
    """What a refused resume shows; settings outside the given sections do not count."""
    other = resolve(GOOD, ["optim.lr=1e-3", "losses.vl.weight=0.5", "losses.feature.weight=1", "workers=0", "seed=3"])
    found = differences(GOOD, other, config.METHOD_KEYS)
    assert "optim.lr: 0.0008 -> 0.001" in found and "losses.vl.weight: 0.7 -> 0.5" in found and "seed: 0 -> 3" in found
    assert any(line.startswith("losses.feature") for line in found) and len(found) == 4


def test_resolving_imports_no_torch() -> None:
    """On a login node a bad setting fails at once."""
    code = (
        "import sys\nfrom toolkit import config\nfrom toolkit.config.ds_config import load_ds_config\n"
        "run = config.resolve(config.Run(out_dir='x', student=config.Student(name='a'), data=config.Data(images='i'),\n"
        "    teacher=config.Teacher(name='t'), losses={'pvl': config.FIELD_PRESETS['dimefm']['pvl']}), ['steps=20000'])\n"
        "config.batch_arithmetic(run, 4), config.to_yaml(run), load_ds_config('ds_configs/zero1.json')\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_paired_defaults_resolve() -> None:
    """The other kind of run."""
    pairs = Run(
        out_dir="x",
        student=Student(name="ViT-B-32", text_tower=True),
        losses={"contrastive": Contrastive()},
        data=Data(pairs="p"),
    )
    assert resolve(pairs) == pairs
