"""Each kind of wrong file gives its message; nothing in a file is ever run."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from imports.networks import prefixed, vit_state
from torch import nn

Written = Callable[..., Path]
Refused = Callable[..., str]


class Touch:
    """A pickle that makes a file when it is loaded without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_no_file(tmp_path: Path, refused: Refused) -> None:
    """Not there; a folder without weights; a folder with a broken index."""
    assert "missing.pt does not exist" in refused(tmp_path / "missing.pt")
    (tmp_path / "empty").mkdir()
    assert "holds no weights; looked for model.safetensors" in refused(tmp_path / "empty")
    (tmp_path / "export.json").write_text("{}")
    assert "is an export of a computation" in refused(tmp_path)
    (tmp_path / "empty" / "model.safetensors.index.json").write_text("[1]")
    assert "holds a list instead of an object" in refused(tmp_path / "empty")
    (tmp_path / "empty" / "model.safetensors.index.json").write_text("{")
    assert "is no readable JSON" in refused(tmp_path / "empty")


@pytest.mark.parametrize("how", ["torch", "pickle", "inside"])
def test_files_that_would_run_code(how: str, tmp_path: Path, written: Written, refused: Refused) -> None:
    """Refused, and it was not run."""
    trap, path = tmp_path / "trap", tmp_path / "weights.pt"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"model": Touch(trap)}, protocol=2))
    elif how == "torch":
        written({"model": Touch(trap)})
    else:
        written({"model": prefixed(vit_state(), "visual."), "epoch": Touch(trap)})
    assert "what would have to run code is refused" in refused(path)
    assert not trap.exists()


def test_a_whole_module_is_refused(written: Written, refused: Refused) -> None:
    """Its class would have to be imported."""
    assert "save the state_dict alone" in refused(written(nn.Linear(2, 2)))


def test_torchscript_is_refused_with_the_way_out(tmp_path: Path, refused: Refused) -> None:
    """The command that it prints makes a file of the weights."""
    path = tmp_path / "ViT B.pt"
    torch.jit.script(nn.LayerNorm(2)).save(path)  # DeepSpeed, where it was used before, has taken nn.Linear's function
    message = refused(path)
    assert "is a TorchScript archive, a program that would have to be run" in message
    code = message.split('python -c "')[1].rsplit('"', 1)[0]
    exec(code, {})
    assert set(torch.load(tmp_path / "ViT B.weights.pt", weights_only=True)) == {"weight", "bias"}


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_torn_files(name: str, tmp_path: Path, written: Written, refused: Refused) -> None:
    """Half of a download; an empty file."""
    path = written(prefixed(vit_state(), "visual."), name)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"<html>not found</html>"):
        path.write_bytes(content)
        assert f"{name} could not be read as" in refused(path)


def test_what_holds_no_weights_by_name(written: Written, refused: Refused) -> None:
    """A list, numbers only, an unknown wrapper, two wrappers, tensors beside groups."""
    assert "holds a list instead of weights by name" in refused(written([torch.zeros(2)]))
    assert "none of model, image_state_dict, state_dict below it, only epoch" in refused(written({"epoch": 3}))
    inside = {"visual.proj": torch.zeros(2, 2)}
    assert "only net" in refused(written({"net": inside}))
    assert "several of model, state_dict below it" in refused(written({"model": inside, "state_dict": inside}))
    assert "tensors and groups (model) side by side" in refused(written({"a": torch.zeros(2), "model": inside}))


def test_numbers_that_are_none(written: Written, refused: Refused) -> None:
    """A student of a run that diverged."""
    state = prefixed(vit_state(), "visual.")
    state["visual.ln_post.bias"] = state["visual.ln_post.bias"] * float("nan")
    assert "visual.ln_post.bias hold numbers that are not finite (1 tensors" in refused(written(state))


def test_names_of_no_layout(written: Written, refused: Refused) -> None:
    """The first ones are shown, and what is known."""
    message = refused(written({"conv1.weight": torch.zeros(2), "fc.weight": torch.zeros(2)}))
    assert "its names are conv1.weight, fc.weight. Known: dimefm, openai, open_clip, hugging_face" in message
    assert "is no CLIP of OpenAI: no name begins with visual." in refused(written({"a": torch.zeros(2)}), "openai")


def test_shapes_that_are_no_model(written: Written, refused: Refused) -> None:
    """Each number that decides the architecture is looked at first."""
    good = {**prefixed(vit_state(), "visual."), "visual.proj": torch.zeros(128, 24)}
    for name, shape, said in [
        ("visual.positional_embedding", (6, 128), "has 5 places beside the class token, which is no square"),
        ("visual.conv1.weight", (128, 3), "visual.conv1.weight is [128, 3], wanted 4 sizes above 0"),
        ("visual.conv1.weight", (100, 3, 16, 16), "has width 100, which heads of 64 do not divide"),
        ("visual.proj", (128,), "visual.proj is [128], wanted 2 sizes"),
    ]:
        assert said in refused(written({**good, name: torch.zeros(shape)}))


def test_a_folder_that_is_taken(tmp_path: Path, written: Written) -> None:
    """Nothing is written over; an empty one is as good as none."""
    from toolkit.errors import ConfigError
    from toolkit.imports import import_weights

    path = written({**prefixed(vit_state(), "visual."), "visual.proj": torch.zeros(128, 24)})
    (tmp_path / "out").mkdir()
    import_weights(path, tmp_path / "out")
    with pytest.raises(ConfigError, match="exists and is not an empty folder"):
        import_weights(path, tmp_path / "out")
    assert json.loads((tmp_path / "out/student.json").read_text())["imported"]["layout"] == "dimefm"
