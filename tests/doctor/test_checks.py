"""Each check on real files of one rank: good as they are, bad for the right reason once something is spoiled."""

import json
import os
import resource
import shutil
import subprocess
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from data.site import Site
from doctor.looking import alone, not_good, only, playground_run, rows_of

from toolkit import config
from toolkit.checkpoint import folder_of
from toolkit.config import Checkpoint, Run, Teacher
from toolkit.data.index import INDEX_NAME, read_index, write_index
from toolkit.doctor import disk, models
from toolkit.doctor.check import Check, Row
from toolkit.doctor.checks import ALL, CHECKS
from toolkit.doctor.turns import Leader, within
from toolkit.embed import prepare_stores
from toolkit.errors import DataError
from toolkit.models import build_teacher

Usage = namedtuple("Usage", "total used free")
CPU = torch.device("cpu")


def test_a_healthy_run_is_good(run: Run) -> None:
    """All checks, and nothing of the doctor stays behind."""
    rows = rows_of(run, *CHECKS)
    assert not_good(rows) == []
    assert {row.check for row in rows} == set(CHECKS)
    assert list(Path(run.out_dir).iterdir()) == [Path(run.out_dir) / ".doctor-nonce"]  # the command removes it
    disk.clean(alone(run))
    assert list(Path(run.out_dir).iterdir()) == []


def test_each_check_comes_after_what_it_needs() -> None:
    """Else it would never be made."""
    names = [check.name for check in ALL]
    assert len(set(names)) == len(names) == len(CHECKS)
    for number, check in enumerate(ALL):
        assert set(check.needs) <= set(names[:number])


def test_a_missing_shard(run: Run, world: Path) -> None:
    """By a pattern, and in a folder whose index names it."""
    shard = sorted((world / "train_images").glob("*.tar"))[0]
    shard.rename(world / "away.tar")
    pattern = replace(run, data=replace(run.data, images=str(shard)))
    row = only(rows_of(pattern, "shards"))
    assert (row.verdict, row.what) == ("bad", "data.images") and f"the first is {shard}" in row.found
    shutil.copy(world / "away.tar", shard.with_name("00007.tar"))
    rows = not_good(rows_of(run, "shards"))
    assert [(row.verdict, row.what, row.found) for row in rows] == [
        ("bad", str(shard), "missing"), ("warn", str(shard.with_name("00007.tar")), "index.json does not know it"),
    ]  # fmt: skip


def test_a_shard_of_another_size_than_its_index(run: Run, world: Path) -> None:
    """Longer: readers would take it, the index says it is another."""
    shard = sorted((world / "train_texts").glob("*.tar"))[0]
    size = shard.stat().st_size
    with open(shard, "ab") as file:
        file.write(bytes(512))
    row = only(rows_of(run, "shards"))
    assert (row.verdict, row.what, row.found) == ("bad", str(shard), f"{size + 512:,} bytes")
    assert row.wanted == f"{size:,}, as index.json says"


def test_a_torn_shard(run: Run, world: Path) -> None:
    """Its samples are looked at too."""
    shard = sorted((world / "train_texts").glob("*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[:2000])
    rows = not_good(rows_of(run, "shards"))
    assert {row.verdict for row in rows} == {"bad"} and len(rows) == 2 and "is cut short" in rows[1].found


def test_other_contents_are_found_with_deep(run: Run, world: Path) -> None:
    """Of the same size: only the hash tells."""
    folder = world / "train_texts"
    shard = sorted(folder.glob("*.tar"))[0]
    counts = {name: entry.samples for name, entry in (read_index(folder) or {}).items()}
    write_index(folder, counts, {shard.name: "0" * 64})
    assert not_good(rows_of(run, "shards")) == []
    row = only(rows_of(run, "shards", deep=True))
    assert (row.verdict, row.what, row.found) == ("bad", str(shard), "other contents")


def test_samples_that_do_not_decode(run: Run, make_shards) -> None:
    """All of those looked at: bad. One of them: a warning, as training passes it over."""
    all_broken = make_shards("broken", 16, broken={k: {"png": b"no picture"} for k in range(16)}, per_shard=16)
    row = only(rows_of(replace(run, data=replace(run.data, images=str(all_broken))), "shards"))
    assert row.verdict == "bad" and row.found.startswith("3 of 3 samples looked at are no picture: 0000 (undecodable)")
    one_broken = make_shards("one", 16, broken={8: {"png": b"no picture"}}, per_shard=16)
    row = only(rows_of(replace(run, data=replace(run.data, images=str(one_broken))), "shards"))
    assert row.verdict == "warn" and "1 of 3" in row.found and "0008" in row.found
    wrong_field = make_shards("texts", 16, fields=("txt",), per_shard=16)
    row = only(rows_of(replace(run, data=replace(run.data, images=str(wrong_field))), "shards"))
    assert (
        row.verdict == "bad"
        and "16 of 16 samples have no picture in 'jpg'" in row.found
        and "data.image_key" in row.todo
    )


def test_shards_without_index(run: Run, world: Path) -> None:
    """They can be read, nothing can be compared."""
    (world / "train_texts" / INDEX_NAME).unlink()
    row = only(rows_of(run, "shards"))
    assert (row.verdict, row.what, row.found) == ("warn", str(world / "train_texts"), "no index.json")


def test_fewer_samples_than_a_batch(run: Run) -> None:
    """Training would refuse it."""
    row = only(rows_of(replace(run, data=replace(run.data, global_batch_size=128, text_batch_size=64)), "shards"))
    assert row.verdict == "bad" and row.what == "data.images" and "96 samples" in row.found


@pytest.fixture
def site(world: Path) -> Iterator[Site]:
    """Serves the world."""
    found = Site(world)
    yield found
    found.close()


def test_remote_shards(run: Run, world: Path, site: Site, tmp_path: Path) -> None:
    """Probed, not fetched; with --deep one is."""
    data = replace(run.data, images=f"{site.url}/train_images/", cache_dir=str(tmp_path / "cache"))
    remote = replace(run, data=data)
    assert not_good(rows_of(remote, "shards")) == []
    assert not any("00000.tar" in path for _, path in site.seen)
    deep = rows_of(remote, "shards", deep=True)
    assert not_good(deep) == [] and site.seen["GET", "/train_images/00000.tar"] == 1
    absent = replace(remote, data=replace(data, images=f"{site.url}/train_images/{{00000..00009}}.tar"))
    row = only(rows_of(absent, "shards"))
    assert row.verdict == "bad" and "not to be had" in row.found
    assert {row.what.partition("=")[0] for row in rows_of(remote, "disk")} == {
        "out_dir", "data.cache_dir", "room for copies",
    }  # fmt: skip


def test_evaluation_sets(run: Run, world: Path) -> None:
    """Classes that cannot be read, a label that is none, a set that is not there."""
    classes = world / "classes.json"
    content = json.loads(classes.read_text())
    classes.write_text(json.dumps(content | {"templates": ["no place"]}))
    row = only(rows_of(run, "evaluation"))
    assert row.verdict == "bad" and row.what == "evaluation.sets.scenes.classes" and "no place" in row.found
    classes.unlink()
    assert "no classes file" in only(rows_of(run, "evaluation")).found
    classes.write_text(json.dumps(content))
    shutil.rmtree(world / "test_pairs")
    row = only(rows_of(run, "evaluation"))
    assert row.verdict == "bad" and row.what == "evaluation.sets.captions.shards"


def test_a_label_that_is_no_number(run: Run, make_shards) -> None:
    """The evaluation would stop at it."""
    folder = make_shards("labels", 4, fields=("png", "cls"), broken={k: {"cls": b"cat"} for k in range(4)})
    sets = {"mine": replace(run.evaluation.sets["scenes"], shards=str(folder))}
    row = only(rows_of(replace(run, evaluation=replace(run.evaluation, sets=sets)), "evaluation"))
    assert row.verdict == "bad" and "are no class number" in row.found


def test_an_out_dir_that_cannot_be_made(run: Run, tmp_path: Path) -> None:
    """Also for root, who may write to anything that is a folder."""
    (tmp_path / "file").write_text("")
    row = only(rows_of(replace(run, out_dir=str(tmp_path / "file" / "run")), "disk"))
    assert row.verdict == "bad" and row.what.startswith("out_dir=") and row.found == "Not a directory"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Eight MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    words = [mount or "mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_and_one_for_reading(run: Run, small_disk: Path) -> None:
    """What the kernel says is in the row, and nothing is left behind."""
    there = replace(run, out_dir=str(small_disk))
    row = only(rows_of(there, "disk"))
    assert (row.verdict, row.found) == ("bad", "No space left on device") and list(small_disk.iterdir()) == []
    assert subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], capture_output=True).returncode == 0
    assert only(rows_of(there, "disk")).found == "Read-only file system"
    rows = rows_of(there, "shared")  # rank 0 cannot write what the others would look for
    assert only(rows).verdict == "bad" and "Read-only file system" in only(rows).found


def test_room_for_checkpoints(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """(keep_last + 2) x (student twice, and the optimizer's three numbers per parameter), less what is there."""
    context = alone(replace(run, checkpoint=Checkpoint(keep_last=3)))
    rows_of(run, "models", context=context)
    count = sum(one.numel() for one in context.kept["models"].student.module.state_dict().values())
    trained = sum(one.numel() for one in context.kept["models"].distiller.parameters() if one.requires_grad)
    one = 8 * count + 12 * trained
    for free, verdict in ((5 * one - 1, "bad"), (5 * one, "warn"), (6 * one, "good")):
        monkeypatch.setattr(models.shutil, "disk_usage", lambda path, free=free: Usage(0, 0, free))
        (row,) = models.judge_room({0: models.room(context)}, context)
        assert row.verdict == verdict
    saved = folder_of(Path(run.out_dir), 1)
    saved.mkdir(parents=True)
    (saved / "weights").write_bytes(bytes(one))
    monkeypatch.setattr(models.shutil, "disk_usage", lambda path: Usage(0, 0, 5 * one - 1))
    (row,) = models.judge_room({0: models.room(context)}, context)
    assert row.verdict == "good" and "are there" in row.wanted


def test_limits_of_this_process(run: Run) -> None:
    """The limit of open files is really read."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    try:
        row = only(rows_of(run, "limits"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (row.what, row.found, row.verdict) == ("open files", "400", "bad")
    many = replace(run, workers=500)
    assert {row.what for row in not_good(rows_of(many, "limits"))} >= {"cores per rank"}


def test_weights_that_are_not_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row that says how to get them, and what needs the models is left out."""
    monkeypatch.setattr("toolkit.models.teacher.hub_reachable", lambda: False)
    absent = replace(run, teacher=Teacher(name="ViT-B-32", pretrained="laion2b_s34b_b79k"))
    rows = rows_of(absent, "models", "limits", "store", "batch", "room")
    assert [(row.check, row.verdict) for row in not_good(rows)] == [
        ("models", "bad"), ("store", "warn"), ("batch", "warn"), ("room", "warn"),
    ]  # fmt: skip
    said = not_good(rows)[0].found
    assert "could not be downloaded" in said and "open_clip.download_pretrained" in said and "Traceback" not in said


def test_a_batch_that_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory is the user's affair, in the words of training."""

    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr("toolkit.first_batch.fake_tensors", full)
    row = only(rows_of(run, "models", "batch"))
    assert row.verdict == "bad" and "lower data.batch_size_per_gpu" in row.found


def stored(run: Run, tmp_path: Path) -> Run:
    """With a full store."""
    kept = replace(run, teacher=replace(run.teacher, store=str(tmp_path / "store")))
    prepare_stores(kept, {"teacher": build_teacher(run.teacher, "fp32", CPU)}, reads_text=True)
    return kept


def test_stores(run: Run, tmp_path: Path) -> None:
    """Absent and half: to be filled. Of another teacher: bad. Other rows than the teacher's: bad."""
    empty = replace(run, teacher=replace(run.teacher, store=str(tmp_path / "store")))
    rows = rows_of(empty, "models", "store")
    assert not_good(rows) == [] and "image: 0 of 1 shards, the rest is embedded at the start" in rows[1].found
    assert not (tmp_path / "store").exists()
    kept = stored(run, tmp_path)
    rows = rows_of(kept, "models", "store")
    assert not_good(rows) == [] and "text: 1 of 1 shards, some compared" in rows[2].found
    manifest = tmp_path / "store/text/manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"weights_sha256": "0" * 64}))
    row = only(rows_of(kept, "models", "store"))
    assert row.verdict == "bad" and "holds embeddings of another teacher" in row.found and "teacher.store" in row.todo


def test_a_store_without_its_teacher(run: Run, tmp_path: Path) -> None:
    """Nobody can fill it: it must be there, and whole."""
    kept = stored(run, tmp_path)
    blind = replace(kept, teacher=replace(kept.teacher, in_memory=False))
    rows = rows_of(blind, "models", "store")
    assert not_good(rows) == [] and rows[1].found == "complete: image and text"
    next((tmp_path / "store/text").glob("*.safetensors")).unlink()
    row = only(rows_of(blind, "models", "store"))
    assert row.verdict == "bad" and "lacks 1 of the 1 shards" in row.found
    shutil.rmtree(tmp_path / "store/image")
    assert "manifest" in only(rows_of(blind, "models")).found


def test_no_room_for_a_store(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What will be embedded must fit."""
    empty = replace(run, teacher=replace(run.teacher, store=str(tmp_path / "store")))
    monkeypatch.setattr("toolkit.doctor.stores.free_at", lambda folder: 1000)
    rows = not_good(rows_of(empty, "models", "store"))
    assert [row.verdict for row in rows] == ["bad", "bad"] and "make room" in rows[0].todo


def test_another_run_in_out_dir(run: Run) -> None:
    """Training would refuse it; a torn checkpoint is told."""
    assert "starts at step 0" in rows_of(run, "resume")[0].found
    folder = Path(run.out_dir)
    folder.mkdir()
    config.save(replace(run, seed=5), folder / "config.yaml")
    row = only(rows_of(run, "resume"))
    assert row.verdict == "bad" and "holds a run with other settings" in row.found
    config.save(run, folder / "config.yaml")
    folder_of(folder, 3).mkdir(parents=True)
    assert only(rows_of(run, "resume")).verdict == "warn"


def measured(action, **more) -> Check:
    return Check("own", "a test", action, lambda found, context: [Row("x", "here", str(found))], **more)


def rows_of_check(run: Run, check: Check, **more) -> list[Row]:
    return Leader(alone(run, **more), say=lambda text: None).run([check])


def test_a_check_that_fails_itself(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The type and the place of what it raised, a user's mistake in its own words; and a judge may fail too."""
    row = only(rows_of_check(run, measured(lambda context: 1 / 0)))
    assert (row.verdict, row.what, row.found) == ("bad", "the check itself", "ZeroDivisionError: division by zero")
    mistake = measured(lambda context: (_ for _ in ()).throw(DataError("shards are missing; write them")))
    row = only(rows_of_check(run, mistake))
    assert (row.what, row.found) == ("a test", "shards are missing; write them")
    late = Check("own", "a test", lambda context: 1, lambda found, context: [][0])
    assert "IndexError" in only(rows_of_check(run, late)).found
    monkeypatch.setattr(disk, "folders_of", lambda run: {"out_dir": None})
    assert "toolkit/doctor/disk.py:" in only(rows_of(run, "disk")).found


def test_who_is_blamed_was_measured_again(run: Run) -> None:
    """The better measurement counts, and there are three at most."""
    speeds = [1, 2, 9, 9]
    judge = lambda found, context: [Row("x", "here", str(found[0]), verdict="good" if found[0] > 5 else "bad")]  # noqa: E731
    check = Check("own", "a test", lambda context: speeds.pop(0), judge, better=max)
    assert rows_of_check(run, check)[0].found == "9" and speeds == [9]
    speeds[:] = [3, 1, 2, 9]
    row = only(rows_of_check(run, check))
    assert row.found == "3" and speeds == [9]


def test_a_check_that_hangs(run: Run) -> None:
    """It is given up, and the row says where it stands."""
    for_ever = threading.Event()
    start = time.monotonic()
    row = only(rows_of_check(run, measured(lambda context: for_ever.wait()), limit=0.5))
    assert row.verdict == "bad" and row.found.startswith("did not end within 0 s; it stands in wait (threading.py:")
    assert time.monotonic() - start < 30
    before = measured(lambda context: 1, before=lambda context: for_ever.wait())
    assert "did not end" in only(rows_of_check(run, before, limit=0.5)).found
    for_ever.set()


def test_what_a_check_exits_with_is_caught() -> None:
    """No library ends the doctor."""
    assert within(5.0, lambda: os.sys.exit(3)) == {"error": "SystemExit: 3", "mistake": False}


def test_the_playground_run_is_the_recipe(tmp_path: Path) -> None:
    """Two writings of one thing."""
    from doctor.looking import write_recipe

    from toolkit.recipe import load_defaults

    assert load_defaults(str(write_recipe(tmp_path, tmp_path / "world"))) == playground_run(
        tmp_path / "world", tmp_path / "run"
    )
