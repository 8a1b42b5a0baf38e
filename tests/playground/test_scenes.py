"""What may occur in a training scene, and what pictures look like."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from toolkit.playground.scenes import (
    CLASSNAMES,
    COLOURS,
    COMBOS,
    SEEN,
    SHAPES,
    UNSEEN,
    Scene,
    outline,
    render,
    sample_scene,
)


def _scenes(count: int, **options) -> list[Scene]:
    rng = np.random.default_rng(0)
    return [sample_scene(rng, **options) for _ in range(count)]


def test_classes_are_split_evenly():
    assert len(COMBOS) == len(set(CLASSNAMES)) == 120
    assert len(UNSEEN) == 20 and set(SEEN) | set(UNSEEN) == set(COMBOS) and not set(SEEN) & set(UNSEEN)
    assert set(Counter(shape for _, shape in UNSEEN).values()) == {2}
    colours = Counter(colour for colour, _ in UNSEEN)
    assert set(colours) == set(COLOURS) and set(colours.values()) == {1, 2}


def test_training_scenes_hold_every_seen_combo_and_no_unseen_one():
    occurring = Counter(thing.combo for scene in _scenes(4000) for thing in scene.things)
    assert set(occurring) == set(SEEN)


@pytest.mark.parametrize("objects", [1, 2])
def test_the_number_of_objects_is_kept(objects):
    assert all(len(scene.things) == objects for scene in _scenes(50, objects=objects))


def test_three_objects_are_refused():
    with pytest.raises(ValueError, match="1 or 2 objects, not 3"):
        sample_scene(np.random.default_rng(0), objects=3)


def test_relations_hold_and_things_lie_within_the_picture_apart_from_each_other():
    for scene in _scenes(500, objects=2):
        first, second = scene.things
        is_true = {
            "left of": first.x < second.x,
            "right of": first.x > second.x,
            "above": first.y < second.y,
            "below": first.y > second.y,
        }
        assert is_true[scene.relation] and first.combo != second.combo
        along = first.x - second.x if scene.relation in ("left of", "right of") else first.y - second.y
        assert abs(along) >= first.radius + second.radius - 1e-9
        for thing in scene.things:
            assert thing.radius - 1e-9 <= min(thing.x, thing.y) <= max(thing.x, thing.y) <= 1 - thing.radius + 1e-9


def test_render_depends_on_the_generator_alone():
    scene = _scenes(1)[0]
    picture = render(scene, np.random.default_rng(3))
    assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8
    assert (picture == render(scene, np.random.default_rng(3))).all()
    assert (picture != render(scene, np.random.default_rng(4))).any()
    assert render(scene, np.random.default_rng(3), size=48).shape == (48, 48, 3)


def test_outlines_differ_and_are_of_one_size():
    for shape in SHAPES:
        assert 0.95 < np.linalg.norm(outline(shape), axis=1).max() < 1.2
    for one, other in combinations(SHAPES, 2):
        assert outline(one).shape != outline(other).shape or not np.allclose(outline(one), outline(other))
