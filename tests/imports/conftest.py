"""Writing files as other projects do, and importing them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from toolkit.errors import ToolkitError
from toolkit.imports import Wishes, import_weights
from toolkit.models import Model
from toolkit.models.build import from_folder

TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 128, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are so small that threads only wait for each other: 18 seconds instead of one on two busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP that open_clip knows by name, with GELU."""
    folder = tmp_path_factory.mktemp("open_clip_configs")
    (folder / "tiny-clip-to-import.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    return "tiny-clip-to-import"


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """`written(content, name="weights.pt")`: a file of tensors by name."""

    def write(content: dict[str, Any], name: str = "weights.pt") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".safetensors"):
            save_file({key: value.contiguous() for key, value in content.items()}, path)
        else:
            torch.save(content, path)
        return path

    return write


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., Model]:
    """`imported(path, layout="auto", **wishes)`: the model of the folder that comes out, in eval mode."""

    def run(path: Path, layout: str = "auto", **wishes: Any) -> Model:
        out = tmp_path / "out"
        import_weights(path, out, Wishes(layout=layout, **wishes))
        model = from_folder(out, asked_by="teacher.name")
        model.module.eval()
        return model

    return run


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """`refused(path, layout="auto", **wishes)`: the message, once it is clear that nothing was left behind."""

    def run(path: Path, layout: str = "auto", **wishes: Any) -> str:
        with pytest.raises(ToolkitError) as caught:
            import_weights(path, tmp_path / "out", Wishes(layout=layout, **wishes))
        assert not list(tmp_path.glob("*out*")) and not list(tmp_path.glob(".*importing"))
        return str(caught.value)

    return run
