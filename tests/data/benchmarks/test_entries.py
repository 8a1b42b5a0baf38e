"""The entries say what the protocol says."""

import json
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest
from set_copies import ELEVATER, OTHERS, PROTOCOL

from toolkit.data.benchmarks.entry import FOLDER, entries, entry_of, read_entry
from toolkit.data.convert.prompts import simple
from toolkit.errors import ConfigError


@pytest.mark.parametrize("name", PROTOCOL)
def test_an_entry_is_the_protocol(name: str) -> None:
    """Classes, counts, metric and number of templates; somewhere to get it from."""
    entry, known = entries()[name], PROTOCOL[name]
    counts = {split: count for split in ("train", "val", "test") if (count := getattr(known, split))}
    assert {split: count for split, count in entry.counts.items() if count} == counts
    assert (entry.classes, entry.metric, len(entry.templates)) == (known.classes, known.metric, known.templates)
    assert len(entry.names) == known.classes and all(name.strip() == name and name for name in entry.names)
    assert entry.source.startswith("http") and entry.licence and entry.get


def test_sums_over_the_twenty() -> None:
    """As ELEVATER counts itself: classes, prompts, pictures."""
    twenty = [entry for entry in entries().values() if entry.group == "elevater"]
    assert set(ELEVATER) == {entry.name for entry in twenty} and len(entries()) == 26
    assert sum(entry.classes for entry in twenty) == 1151
    assert sum(len(entry.names) * len(entry.templates) for entry in twenty) == 9938
    assert sum(entry.counts["train"] for entry in twenty) == 638_429
    assert sum(entry.counts["test"] for entry in twenty) == 192_677
    assert {entry.name for entry in entries().values() if entry.group == "robustness"} == {*OTHERS} - {"imagenet-1k"}


def test_class_names_in_the_order_of_elevater() -> None:
    """Its own order, where it is not CLIP's: EuroSAT, FER-2013, VOC and Pets by alphabet, CIFAR-100 as it came."""
    assert entry_of("eurosat").names[:3] == ["annual crop land", "forest", "brushland or shrubland"]
    assert entry_of("fer2013").names == ["angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised"]
    for name in ("voc2007", "pets"):
        lower = [one.lower() for one in entry_of(name).names]
        assert lower == sorted(lower)
    assert entry_of("cifar10").names[:2] == ["airplane", "automobile"]
    assert entry_of("cifar100").names[:2] == ["chimpanzee", "trout"]
    assert entry_of("cars").names[0] == "Acura Integra Type R 2001"
    assert entry_of("mnist").names == [*"0123456789"]
    assert entry_of("patchcamelyon").names[1].endswith("tumor tissue")


def test_names_of_the_relatives_of_imagenet_belong_to_their_ids() -> None:
    """By the WordNet ids, the names of -A are ImageNet's own but for a few, and so are those of -R."""
    ids = files("timm").joinpath("data/_info/imagenet_synsets.txt").read_text().split()
    by_id = dict(zip(ids, entry_of("imagenet-1k").names, strict=True))
    assert len(by_id) == 1000 and by_id["n01440764"] == "tench" and by_id["n02099601"] == "Golden Retriever"
    for name, wanted in (
        ("imagenet-a", 190),
        ("imagenet-r", 182),
    ):  # the others are looked over: synonyms, such as gasmask
        entry = entry_of(name)
        own = [spelling for (spelling,) in entry.spellings]
        assert own == sorted(own) and set(own) <= set(by_id)
        same = sum(simple(by_id[one]) == simple(given) for one, given in zip(own, entry.names, strict=True))
        assert same == wanted
    objectnet = entry_of("objectnet")
    assert objectnet.own_names == sorted(objectnet.own_names)
    same = sum(simple(a) == simple(b) for a, b in zip(objectnet.own_names, objectnet.names, strict=True))
    assert same == 110  # but two towels and a drying rack


def test_words_name_one_entry_each() -> None:
    """No word is claimed twice, however it is spelled; the ids of the protocol's configs are among them."""
    claimed = [(simple(word), entry.name) for entry in entries().values() for word in entry.words]
    assert len({word for word, _ in set(claimed)}) == len(set(claimed))
    configs = (
        "caltech101 cifar10 cifar100 country211 dtd eurosat-clip fer2013 fgvc-aircraft-2013b flower102 food101 gtsrb "
    )
    configs += (
        "hateful-memes kitti-distance mnist oxford-iiit-pets patchcamelyon rendered-sst2 resisc45-clip stanfordcar "
    )
    configs += "voc2007classification imagenet-1k imagenetv2 imagenet-r imagenet-a imagenet-sketch objectnet"
    assert {entry_of(word).name for word in configs.split()} == set(entries())
    with pytest.raises(ConfigError, match="did you mean cifar10"):
        entry_of("cifar_01")


def test_only_kitti_is_squashed() -> None:
    """Every other set is resized by its shorter side and cropped."""
    assert [entry.name for entry in entries().values() if entry.resize == "squash"] == ["kitti-distance"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metrics": "accuracy"}, "metrics"),
        ({"metric": "top5"}, "metric"),
        ({"classes": "many"}, "classes"),
        ({"classes": 11}, "classnames has 10 names for 11 classes"),
        ({"prompts": "CIFAR01"}, "did you mean CIFAR10"),
        ({"counts": {"tests": 3}}, "'tests'"),
        ({"counts": {"train": 3}}, "counts needs test"),
        ({"kind": "multilabel"}, "does not go with kind"),
        ({"own_names": ["a", "a"]}, "own_names has 2 names for 10 classes"),
    ],
)
def test_a_wrong_entry_is_refused(change: dict[str, Any], said: str) -> None:
    """The key is named, and the file."""
    content = json.loads((FOLDER / "cifar-10.json").read_text())
    assert read_entry(content, "x.json") == replace(entries()["cifar-10"])
    with pytest.raises(ConfigError, match=said) as error:
        read_entry(content | change, "x.json")
    assert str(error.value).startswith("x.json: ")


def test_a_missing_key_is_named() -> None:
    """Not filled in."""
    content = json.loads((FOLDER / "cifar-10.json").read_text())
    del content["licence"]
    with pytest.raises(ConfigError, match="licence"):
        read_entry(content, "x.json")
