"""The config's options and the classes say the same."""

import inspect
from dataclasses import fields

import pytest
from losses.cases import needs_of
from torch import nn

from toolkit.config import FIELD_PRESETS, LossOptions
from toolkit.config.losses import OPTIONS
from toolkit.config.validate import NEEDS
from toolkit.errors import ConfigError
from toolkit.losses import LOSSES, build_loss

OF_THE_RUN = {"classes"}
"""Options that the run turns into something else (a path into embeddings) before it builds the loss."""


def test_config_and_classes_agree() -> None:
    """Every loss has options of its own kind, and says it needs what the config checks."""
    assert set(OPTIONS) == set(LOSSES)
    assert {name: set(needs) for name, needs in NEEDS.items()} == {name: set(needs_of(name)) for name in LOSSES}
    for name, schema in OPTIONS.items():
        assert schema().kind == name


@pytest.mark.parametrize("name", LOSSES)
def test_defaults_of_config_and_class_agree(name: str) -> None:
    """build_loss("pvl") is the pvl of a run that says nothing; no option is known to one of the two only."""
    shared = {field.name for field in fields(LossOptions)}
    config = {f.name: getattr(OPTIONS[name](), f.name) for f in fields(OPTIONS[name]) if f.name not in shared}
    config = {key: value for key, value in config.items() if key not in OF_THE_RUN}
    takes = {} if LOSSES[name].__init__ is nn.Module.__init__ else inspect.signature(LOSSES[name]).parameters
    given = LOSSES[name].built_with
    assert {key: p.default for key, p in takes.items() if key not in given} == config  # type: ignore[operator]
    assert all(takes[key].default is inspect.Parameter.empty for key in given)  # type: ignore[union-attr]


def test_needs_that_depend_on_an_option() -> None:
    """Texts on both sides, where asked for."""
    for name in ("feature", "fd"):
        assert build_loss(name).needs == {"teacher"}
        assert build_loss(name, mode="both").needs == {"teacher", "student_text", "text"}


@pytest.mark.parametrize("preset", FIELD_PRESETS)
def test_presets_are_known_terms(preset: str) -> None:
    """Under the key of their kind, and with a weight somewhere."""
    terms = FIELD_PRESETS[preset]
    assert all(type(term) is OPTIONS[name] for name, term in terms.items())
    assert any(term.weight for term in terms.values())


def test_unknown_names_and_options() -> None:
    """With the nearest known one."""
    with pytest.raises(ConfigError, match=r"no loss named 'udits'; did you mean udist\?"):
        build_loss("udits")
    with pytest.raises(ConfigError, match="loss 'vl' does not take"):
        build_loss("vl", temprature=2.0)
