"""From a name to a network: an open_clip architecture, `timm/<name>`, a user's function, or a checkpoint folder."""

import inspect
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import timm
from open_clip.timm_model import TimmModel
from safetensors.torch import load_file
from torch import Tensor, nn

from toolkit.config import Preprocess
from toolkit.errors import CheckpointError, ConfigError
from toolkit.models.contract import Model, check_model
from toolkit.registry import did_you_mean, load_callable

CARD_NAME = "student.json"
WEIGHTS_NAME = "student.safetensors"


class ImageTower(nn.Module):
    """An open_clip or timm tower alone, in open_clip's key layout (`visual.*`)."""

    def __init__(self, visual: nn.Module) -> None:
        """`visual` maps images [b, 3, h, w] to embeddings [b, e]."""
        super().__init__()
        self.visual = visual

    def encode_image(self, images: Tensor) -> Tensor:
        """[b, 3, h, w] -> [b, e], not normalised."""
        return self.visual(images)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass."""
        self.visual.set_grad_checkpointing(enable)  # type: ignore[operator]


class Projected(nn.Module):
    """A user's module whose width is not the teacher's, with a linear projection (no bias) behind each tower."""

    def __init__(self, body: nn.Module, width: int, embed_dim: int, text_tower: bool) -> None:
        """`width` is what the body returns, `embed_dim` what is wanted."""
        super().__init__()
        self.body = body
        self.image_projection = nn.Linear(width, embed_dim, bias=False)
        self.text_projection = nn.Linear(width, embed_dim, bias=False) if text_tower else None
        if hasattr(body, "set_grad_checkpointing"):
            self.set_grad_checkpointing = body.set_grad_checkpointing

    @property
    def logit_scale(self) -> Any:
        """The body's, if it has one."""
        return getattr(self.body, "logit_scale", None)

    def encode_image(self, images: Tensor) -> Tensor:
        """[b, 3, h, w] -> [b, e]."""
        return self.image_projection(self.body.encode_image(images))  # type: ignore[operator]

    def encode_text(self, tokens: Tensor) -> Tensor:
        """[b, l] -> [b, e]."""
        if self.text_projection is None:
            raise TypeError("this student was built without a text tower")
        return self.text_projection(self.body.encode_text(tokens))  # type: ignore[operator]


def build_model(
    name: str,
    kwargs: dict[str, Any],
    *,
    embed_dim: int | None,
    text_tower: bool,
    image_size: int | None = None,
    tokenizer: str | None = None,
    asked_by: str,
) -> Model:
    """An untrained network by name, at width `embed_dim` (None: its own). Raises ConfigError for unknown names."""
    if ":" in name and not name.startswith(("hf-hub:", "local-dir:")):
        model = from_function(name, kwargs, embed_dim, text_tower, image_size, asked_by)
    elif name.startswith("timm/"):
        model = from_timm(name, kwargs, embed_dim, text_tower, image_size, asked_by)
    else:
        model = from_open_clip(name, kwargs, embed_dim, text_tower, image_size, asked_by)
    if tokenizer is not None:
        model.tokenizer = tokenizer
    return model


def from_function(
    name: str, kwargs: dict[str, Any], embed_dim: int | None, text_tower: bool, image_size: int | None, asked_by: str
) -> Model:
    """Call the user's function; `embed_dim` is passed if it takes one; another width gets a projection."""
    function = load_callable(name, asked_by=asked_by)
    takes = inspect.signature(function).parameters
    own = dict(kwargs)
    if embed_dim is not None and "embed_dim" in takes:
        own.setdefault("embed_dim", embed_dim)
    try:
        module = function(**own)
    except Exception as error:
        raise ConfigError(
            f"{asked_by}={name} could not be called with {own}: {type(error).__name__}: {error}"
        ) from error
    default = Preprocess()
    size = image_size or getattr(module, "image_size", None) or default.image_size
    preprocess = Preprocess(
        image_size=size if isinstance(size, int) else size[0],
        mean=three_floats(getattr(module, "image_mean", None) or default.mean),
        std=three_floats(getattr(module, "image_std", None) or default.std),
    )
    context = int(getattr(module, "context_length", 77))
    asked = f"{asked_by}={name}"
    width = check_model(module, preprocess, asked_by=asked, text_tower=text_tower, context_length=context)
    model = Model(
        module,
        preprocess,
        name,
        embed_dim or width,
        tokenizer=getattr(module, "tokenizer", None),
        context_length=context,
    )
    if width != model.embed_dim:
        model.module = Projected(module, width, model.embed_dim, text_tower)
    return model


def three_floats(values: Any) -> tuple[float, float, float]:
    """A user's list or tuple of three numbers."""
    red, green, blue = map(float, values)
    return red, green, blue


def from_timm(
    name: str, kwargs: dict[str, Any], embed_dim: int | None, text_tower: bool, image_size: int | None, asked_by: str
) -> Model:
    """A timm backbone through open_clip's TimmModel with a bias-free linear projection, image tower only."""
    architecture = name.removeprefix("timm/")
    if not timm.is_model(architecture):
        raise ConfigError(
            f"{asked_by}: timm has no model {architecture}{did_you_mean(architecture, timm.list_models(), 'timm/')}"
        )
    if text_tower:
        raise ConfigError(f"{asked_by}={name} has no text tower; use an open_clip name or your own function for pairs")
    if embed_dim is None:
        raise ConfigError(f"{asked_by}={name} needs a width; name a teacher or set student.embed_dim")
    published = timm.get_pretrained_cfg(architecture)
    size = image_size or (published.input_size[-1] if published else 224)
    try:
        tower = TimmModel(architecture, embed_dim, image_size=size, **{"proj_bias": False, **kwargs})
    except TypeError as error:
        raise ConfigError(
            f"student.kwargs {kwargs}: {error}; open_clip's TimmModel takes pool, drop, drop_path, patch_drop"
        ) from error
    fit_projection(tower)
    preprocess = Preprocess(image_size=size)
    module = ImageTower(tower)
    check_model(module, preprocess, asked_by=f"{asked_by}={name}", text_tower=False)
    return Model(module, preprocess, name, embed_dim)


def fit_projection(tower: TimmModel) -> None:
    """Give it the width that comes out of the backbone, where that has a layer behind its pooling (MobileNets).

    open_clip 3.3 takes the width before that layer, and its forward then fails.
    """
    projection, width = getattr(tower.head, "proj", None), getattr(tower.trunk, "head_hidden_size", None)
    if isinstance(projection, nn.Linear) and width and width != projection.in_features:
        tower.head.proj = nn.Linear(width, projection.out_features, bias=projection.bias is not None)


def from_open_clip(
    name: str, kwargs: dict[str, Any], embed_dim: int | None, text_tower: bool, image_size: int | None, asked_by: str
) -> Model:
    """An open_clip architecture at width `embed_dim`: its image tower, with `text_tower` the whole CLIP."""
    known = open_clip.get_model_config(name)
    if known is None:
        hint = did_you_mean(name, open_clip.list_models())
        raise ConfigError(
            f"{asked_by}: no model named {name!r}{hint or '.'} Known: open_clip names, timm/<name>, package.module:function"
        )
    cfg = with_kwargs(known, kwargs)
    cfg["embed_dim"] = embed_dim or cfg["embed_dim"]
    if image_size:
        cfg["vision_cfg"] = {**cfg["vision_cfg"], "image_size": image_size}
    size = cfg["vision_cfg"].get("image_size", 224)
    preprocess = Preprocess(image_size=size if isinstance(size, int) else size[0])
    try:
        if text_tower:
            build = partial(open_clip.CLIP, nonscalar_logit_scale=True)
            if cfg.pop("custom_text", False) or "hf_model_name" in cfg["text_cfg"]:
                build = partial(open_clip.CustomTextCLIP, nonscalar_logit_scale=True)
            module: nn.Module = build(**cfg)
        else:
            quick_gelu = cfg.get("quick_gelu", False)
            module = ImageTower(open_clip.model._build_vision_tower(cfg["embed_dim"], cfg["vision_cfg"], quick_gelu))
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ConfigError(
            f"{asked_by}={name} could not be built with student.kwargs {kwargs}: {type(error).__name__}: {error}"
        ) from error
    context = int(cfg["text_cfg"].get("context_length", 77))
    asked = f"{asked_by}={name}"
    check_model(module, preprocess, asked_by=asked, text_tower=text_tower, context_length=context)
    return Model(
        module, preprocess, name, cfg["embed_dim"], tokenizer=name if text_tower else None, context_length=context
    )


def with_kwargs(known: dict[str, Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """An architecture's config with `student.kwargs` laid over it; `vision_cfg` and `text_cfg` key by key."""
    cfg = dict(known)
    allowed = {*inspect.signature(open_clip.CLIP).parameters, *known} - {"embed_dim", "nonscalar_logit_scale"}
    for key, value in kwargs.items():
        if key not in allowed:
            raise ConfigError(
                f"student.kwargs.{key} is no setting of an open_clip architecture{did_you_mean(key, allowed)}; "
                f"known: {', '.join(sorted(allowed))}"
            )
        cfg[key] = {**cfg[key], **value} if isinstance(value, dict) and isinstance(cfg.get(key), dict) else value
    return cfg


def write_card(model: Model, kwargs: dict[str, Any], text_tower: bool, path: Path, **extra: Any) -> None:
    """Write what `from_folder` needs to rebuild the network beside its weights; a sentencepiece file is copied along."""
    tokenizer = model.tokenizer
    if tokenizer and tokenizer.endswith(".model"):
        copied = path / "tokenizer.model"
        copied.write_bytes(Path(tokenizer).read_bytes())
        tokenizer = copied.name
    card = {
        "name": model.name,
        "kwargs": kwargs,
        "embed_dim": model.embed_dim,
        "text_tower": text_tower,
        "tokenizer": tokenizer,
        "context_length": model.context_length,
        "preprocess": asdict(model.preprocess),
        **extra,
    }
    (path / CARD_NAME).write_text(json.dumps(card, indent=1) + "\n")


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a checkpoint folder; raises CheckpointError when there is none or it is torn."""
    try:
        card = json.loads((folder / CARD_NAME).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} holds no readable {CARD_NAME} ({error}); give a checkpoint folder of a run"
        ) from error
    return dict(card)


def from_folder(folder: Path, *, asked_by: str) -> Model:
    """Rebuild a student from its checkpoint folder and load its weights."""
    card = read_card(folder)
    shown: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in card["preprocess"].items()}
    preprocess = Preprocess(**shown)
    model = build_model(
        card["name"],
        card["kwargs"],
        embed_dim=card["embed_dim"],
        text_tower=card["text_tower"],
        image_size=preprocess.image_size,
        asked_by=asked_by,
    )
    model.preprocess = preprocess
    tokenizer = card["tokenizer"]
    model.tokenizer = str(folder / tokenizer) if tokenizer and tokenizer.endswith(".model") else tokenizer
    model.context_length = card["context_length"]
    load_weights(model.module, folder / WEIGHTS_NAME)
    return model


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a safetensors file, every key and shape; raises CheckpointError naming what does not fit."""
    if path.is_dir():
        path = path / WEIGHTS_NAME
    try:
        state = load_file(path)
    except Exception as error:
        raise CheckpointError(
            f"{path} could not be read as safetensors ({error}); give a student.safetensors"
        ) from error
    own = module.state_dict()
    wrong = [
        f"{k} is {list(state[k].shape)}, wanted {list(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    wrong += [f"{k} is missing" for k in own if k not in state] + [f"{k} is unknown" for k in state if k not in own]
    if wrong:
        raise CheckpointError(
            f"{path} is of another model: {'; '.join(wrong[:3])} ({len(wrong)} in all); name the model it was saved from"
        )
    module.load_state_dict(state)
