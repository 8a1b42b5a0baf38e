"""The frozen model that is imitated."""

import logging
import os
import socket
import warnings
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub.constants
import open_clip
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from toolkit import config
from toolkit.config import Preprocess
from toolkit.embeddings import unit
from toolkit.errors import ConfigError
from toolkit.models.build import CARD_NAME, build_model, from_folder, load_weights
from toolkit.models.contract import Model, normalise
from toolkit.models.frozen import quicken
from toolkit.models.tokenizers import Tokenizer, build_tokenizer
from toolkit.registry import did_you_mean


class Teacher:
    """Both towers, frozen, in eval mode, cast once; never in the engine and never in a checkpoint."""

    def __init__(self, model: Model, dtype: torch.dtype, device: torch.device) -> None:
        """`model` must have `encode_text` and a tokenizer if sentences are to be encoded."""
        self.name = model.name
        self.model = model
        self.preprocess: Preprocess = model.preprocess
        self.embed_dim = model.embed_dim
        self.tokenizer_name = model.tokenizer
        self.context_length = model.context_length
        self.dtype, self.device = dtype, device
        self.logit_scale = own_scalar(model.module, "logit_scale", device, exponentiate=True)
        """Its own scale, exponentiated, [1]; None where the module has none."""
        self.logit_bias = own_scalar(model.module, "logit_bias", device, exponentiate=False)
        """Of SigLIP-type teachers, [1]."""
        self.module: nn.Module = model.module.to(device=device, dtype=dtype).eval().requires_grad_(False)
        if device.type == "cpu":
            quicken(self.module)

    @property
    def image_params(self) -> int:
        """Of its image tower."""
        return self.model.image_params

    @property
    def text_params(self) -> int:
        """Of its text tower."""
        return self.model.text_params

    def release(self) -> None:
        """A live teacher stays in memory."""

    def tokenizer(self) -> Tokenizer:
        """Its own tokenizer; raises ConfigError when it has none."""
        if self.tokenizer_name is None:
            raise ConfigError(
                f"teacher {self.name} has no tokenizer; set teacher.tokenizer to an open_clip name or a .model file"
            )
        return build_tokenizer(self.tokenizer_name, self.context_length)

    @torch.no_grad()
    def encode_image(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Unit-norm fp32 embeddings of pictures in the teacher's own size."""
        return unit(self.module.encode_image(normalise(images.to(self.device), self.preprocess).to(self.dtype)))  # type: ignore[operator]

    @torch.no_grad()
    def encode_text(self, tokens: Int[Tensor, "m l"]) -> Float[Tensor, "m e"]:
        """Unit-norm fp32 embeddings of tokenised sentences."""
        return unit(self.module.encode_text(tokens.to(self.device)))  # type: ignore[operator]


def own_scalar(module: nn.Module, name: str, device: torch.device, *, exponentiate: bool) -> Tensor | None:
    """A learnt number of a CLIP module in fp32, read before its weights are cast."""
    found = getattr(module, name, None)
    if not isinstance(found, Tensor):
        return None
    value = found.detach().float().reshape(1).to(device)
    return value.exp() if exponentiate else value


def build_teacher(cfg: config.Teacher, precision: str, device: torch.device) -> Teacher:
    """The teacher of a run: open_clip name and tag or file, checkpoint folder, or the user's function and weights."""
    folder = Path(cfg.name)
    if (folder / CARD_NAME).is_file():
        model = from_folder(folder, asked_by="teacher.name")
    elif ":" in cfg.name and not cfg.name.startswith(("hf-hub:", "local-dir:")):
        model = build_model(cfg.name, cfg.kwargs, embed_dim=None, text_tower=True, asked_by="teacher.name")
        if not cfg.pretrained:
            raise ConfigError(
                f"teacher.pretrained is not set; give the weights file of {cfg.name}, or random to try a set-up"
            )
        if cfg.pretrained != "random":
            load_weights(model.module, Path(cfg.pretrained))
    else:
        model = open_clip_teacher(cfg)
    if cfg.tokenizer is not None:
        model.tokenizer = cfg.tokenizer
    if cfg.image_size is not None:
        model.preprocess = replace(model.preprocess, image_size=cfg.image_size)
    wanted = cfg.dtype if cfg.dtype != "auto" else precision
    return Teacher(model, torch.bfloat16 if wanted == "bf16" else torch.float32, device)


def open_clip_teacher(cfg: config.Teacher) -> Model:
    """An open_clip model with weights from a tag or a file; raises ConfigError that says what to set and how."""
    schema = cfg.name.startswith(("hf-hub:", "local-dir:"))
    known = None if schema else open_clip.get_model_config(cfg.name)
    if known is None and not schema:
        hint = did_you_mean(cfg.name, open_clip.list_models())
        raise ConfigError(
            f"teacher.name: no model or checkpoint folder named {cfg.name!r}{hint or '.'} "
            "Known: open_clip names, folders, package.module:function"
        )
    tags = [] if schema else open_clip.list_pretrained_tags_by_model(cfg.name)
    if not cfg.pretrained and not schema:
        raise ConfigError(
            f"teacher.pretrained is not set; choose one of {', '.join(tags) or 'no published tags'}, give a weights file, "
            "or set teacher.pretrained=random to try a set-up without weights"
        )
    is_file = Path(cfg.pretrained).is_file()
    if not schema and cfg.pretrained not in tags and cfg.pretrained != "random" and not is_file:
        raise ConfigError(
            f"teacher.pretrained={cfg.pretrained} is neither a file nor a tag of {cfg.name}"
            f"{did_you_mean(cfg.pretrained, tags)}; tags: {', '.join(tags)}"
        )
    if cfg.pretrained in tags:
        check_quick_gelu(cfg, bool(known and known.get("quick_gelu")))
    loud = [logging.getLogger(name) for name in (None, "huggingface_hub")]
    levels = [logger.level for logger in loud]
    for logger in loud:
        logger.setLevel(logging.CRITICAL)
    if not hub_reachable():
        huggingface_hub.constants.HF_HUB_OFFLINE = True  # cached files still load; without this it retries for 46 s
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = open_clip.create_model(
                cfg.name, pretrained=None if schema or cfg.pretrained == "random" else cfg.pretrained
            )
    except Exception as error:
        raise ConfigError(unavailable(cfg, error)) from error
    finally:
        for logger, level in zip(loud, levels, strict=True):
            logger.setLevel(level)
    shown = open_clip.get_model_preprocess_cfg(module)
    size = shown["size"]
    preprocess = Preprocess(
        image_size=size if isinstance(size, int) else size[0],
        mean=tuple(shown["mean"]),
        std=tuple(shown["std"]),
        interpolation=shown["interpolation"],
        resize_mode=shown["resize_mode"],
    )
    width = (
        int(open_clip.get_model_config(cfg.name)["embed_dim"]) if not schema else int(module.text_projection.shape[-1])
    )
    return Model(
        module,
        preprocess,
        cfg.name,
        width,
        tokenizer=cfg.name,
        context_length=int(getattr(module, "context_length", 77)),
    )


def check_quick_gelu(cfg: config.Teacher, architecture_has_it: bool) -> None:
    """Raise ConfigError when the weights were trained with QuickGELU and the architecture computes GELU, or the reverse."""
    weights_want_it = bool(open_clip.get_pretrained_cfg(cfg.name, cfg.pretrained).get("quick_gelu", False))
    if weights_want_it != architecture_has_it:
        right = f"{cfg.name}-quickgelu" if weights_want_it else cfg.name.removesuffix("-quickgelu")
        raise ConfigError(
            f"teacher.name={cfg.name} computes {'QuickGELU' if architecture_has_it else 'GELU'}, the weights "
            f"{cfg.pretrained!r} were trained with {'QuickGELU' if weights_want_it else 'GELU'}; use teacher.name={right}"
        )


def unavailable(cfg: config.Teacher, error: Exception) -> str:
    """What to do when weights cannot be had or do not fit."""
    reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    if Path(cfg.pretrained).is_file():
        return f"teacher.pretrained={cfg.pretrained} does not load into {cfg.name} ({reason}); give the file of this architecture"
    which = f"open_clip.get_pretrained_cfg('{cfg.name}', '{cfg.pretrained}')"
    return (
        f"the weights {cfg.pretrained!r} of {cfg.name} could not be downloaded ({reason}). On a machine with network run\n"
        f'  python -c "import open_clip; print(open_clip.download_pretrained({which}))"\n'
        "copy the printed file here and set teacher.pretrained=/path/to/that/file "
        "(or set teacher.pretrained=random to try the set-up without weights)"
    )


def hub_reachable() -> bool:
    """Can the hub be reached directly; true without asking when a proxy is configured."""
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return True
    host = urlsplit(huggingface_hub.constants.ENDPOINT)
    try:
        socket.create_connection((host.hostname or "", host.port or 443), timeout=5).close()
    except OSError:
        return False
    return True
