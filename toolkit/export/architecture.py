"""The open_clip config of a student or teacher, where open_clip knows its architecture."""

from pathlib import Path
from typing import Any

import open_clip

from toolkit import config
from toolkit.models.build import CARD_NAME, read_card, with_kwargs

TIMM_OPTIONS = {
    "pool": "timm_pool",
    "proj": "timm_proj",
    "proj_bias": "timm_proj_bias",
    "drop": "timm_drop",
    "drop_path": "timm_drop_path",
    "patch_drop": "patch_dropout",
}
"""What `student.kwargs` of a timm student are called in a `vision_cfg`."""


def is_own_function(name: str) -> bool:
    """Is it `package.module:function`, of which open_clip can know nothing."""
    return ":" in name and not name.startswith(("hf-hub:", "local-dir:"))


def config_of_card(card: dict[str, Any]) -> dict[str, Any] | None:
    """Of a checkpoint folder's card; a timm student's has no `text_cfg`; None for the user's own function."""
    name, size = card["name"], card["preprocess"]["image_size"]
    if is_own_function(name):
        return None
    if name.startswith("timm/"):
        options = {TIMM_OPTIONS[key]: value for key, value in card["kwargs"].items()}
        vision = {"timm_model_name": name.removeprefix("timm/"), "image_size": size, **options}
        return {"embed_dim": card["embed_dim"], "vision_cfg": vision}
    cfg = with_kwargs(open_clip.get_model_config(name), card["kwargs"])
    cfg["embed_dim"] = card["embed_dim"]
    cfg["vision_cfg"] = {**cfg["vision_cfg"], "image_size": size}
    return cfg


def config_of_teacher(cfg: config.Teacher) -> dict[str, Any] | None:
    """Of a run's teacher; None for the user's own function."""
    folder = Path(cfg.name)
    if (folder / CARD_NAME).is_file():
        return config_of_card(read_card(folder))
    found = None if is_own_function(cfg.name) else open_clip.get_model_config(cfg.name)
    return None if found is None else dict(found)
