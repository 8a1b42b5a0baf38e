"""DIME-FM's own files: what its training script writes, and what its evaluation reads (the released weights).

One image tower (a ViT or a Swin) and a projection used as `features @ projection`. Names differ in three ways: the tower is
`image_encoder.` or `visual.`, the projection `image_projection`, `vision_projection` or, inside a ViT, `visual.proj`; the
ViT's LayerNorm adds 1e-5 in the training script and 1e-12 in the released models, which no weight shows.
"""

import difflib
import re
from dataclasses import replace

from torch import Tensor

from toolkit.config import Preprocess
from toolkit.errors import CheckpointError, ConfigError
from toolkit.imports.found import Found, renamed
from toolkit.imports.reading import Weights, first_keys
from toolkit.imports.shapes import count_blocks, named, need, vision_of, with_eps

LAYOUT = "dimefm"
TOWERS = ("image_encoder.", "visual.")
PROJECTIONS = ("image_projection", "vision_projection", "visual.proj")
TEXT = ("lang_encoder.", "text_encoder.", "transformer.", "token_embedding.", "ln_final.")
TEXT_NAMES = ("lang_projection", "text_projection", "positional_embedding", "logit_scale")
BUFFERS = (".relative_position_index", ".attn_mask")
SWINS: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {
    (96, (2, 2, 6, 2), (3, 6, 12, 24)): "timm/swin_tiny_patch4_window7_224",
    (96, (2, 2, 18, 2), (3, 6, 12, 24)): "timm/swin_small_patch4_window7_224",
    (128, (2, 2, 18, 2), (4, 8, 16, 32)): "timm/swin_base_patch4_window7_224",
    (192, (2, 2, 18, 2), (6, 12, 24, 48)): "timm/swin_large_patch4_window7_224",
}
"""(width of the first stage, blocks per stage, heads per stage) -> the same network, of 7 x 7 windows, in timm."""
TRAINING_EPS, RELEASED_EPS, SWIN_EPS = 1e-5, 1e-12, 1e-5


def from_dimefm(weights: Weights, layer_norm_eps: float | None) -> Found:
    """The student in a file of DIME-FM. `layer_norm_eps` None: as the layout says.

    Raises CheckpointError when tower or projection are missing or there are two.
    """
    tensors = weights.tensors
    text = [key for key in tensors if key.startswith(TEXT) or key in TEXT_NAMES]
    tower = only(TOWERS, [t for t in TOWERS if any(tower_key(key, t) for key in tensors)], "image tower", weights)
    projection = only(PROJECTIONS, [name for name in PROJECTIONS if name in tensors], "image projection", weights)
    need(tensors, projection, 2)
    body = {key.removeprefix(tower): key for key in tensors if tower_key(key, tower)}
    strange = [key for key in tensors if key not in text and key != projection and not tower_key(key, tower)]
    if f"{tower}patch_embed.proj.weight" in tensors:
        found = swin(tensors, body, projection, layer_norm_eps)
    elif f"{tower}conv1.weight" in tensors:
        found = vit(tensors, body, projection, layer_norm_eps)
    else:
        raise CheckpointError(
            f"{weights.path}: the tower {tower}* is neither a ViT ({tower}conv1.weight) nor a Swin "
            f"({tower}patch_embed.proj.weight), it has {first_keys(body)}"
        )
    names = {**found.sources, **{key: key for key in strange}}  # strange ones are refused with the nearest name
    dropped = {**found.dropped}
    if text:
        dropped["text side, which in DIME-FM is the teacher's"] = text
    return replace(found, sources=names, weights=renamed_and_projected(tensors, names, projection), dropped=dropped)


def tower_key(key: str, tower: str) -> bool:
    """Is it of that tower; `visual.proj` is a projection, whatever the tower is called."""
    return key.startswith(tower) and key not in PROJECTIONS


def only(choices: tuple[str, ...], found: list[str], what: str, weights: Weights) -> str:
    """The one that is there; raises CheckpointError for none or several."""
    if len(found) != 1:
        has = f"several: {', '.join(found)}" if found else f"none of {', '.join(choices)}"
        near = [
            name for choice in choices for name in difflib.get_close_matches(choice, weights.tensors, n=1, cutoff=0.8)
        ]
        has += f" (nearest: {near[0]})" if near and not found else ""
        raise CheckpointError(
            f"{weights.path} is no file of DIME-FM: of an {what} it has {has}; its names are {first_keys(weights.tensors)}. "
            "Other layouts are openai, open_clip and hugging_face"
        )
    return found[0]


def vit(tensors: dict[str, Tensor], body: dict[str, str], projection: str, given: float | None) -> Found:
    """OpenAI's visual tower under DIME-FM's names."""
    eps = given if given is not None else TRAINING_EPS if projection == "visual.proj" else RELEASED_EPS
    names = {f"visual.{key}": source for key, source in body.items()} | {"visual.proj": projection}
    vision = vision_of({name: tensors[source] for name, source in names.items()})
    if isinstance(vision["layers"], list):
        raise CheckpointError("DIME-FM has no ResNet students; use the layout openai")
    name, kwargs = named(vision, None, quick_gelu=True)
    why = "as you say" if given is not None else f"as the projection is called {projection}"
    return Found(
        layout=LAYOUT,
        name=name,
        kwargs=with_eps(kwargs, eps),
        embed_dim=need(tensors, projection, 2)[1],
        text_tower=False,
        preprocess=Preprocess(image_size=vision["image_size"]),
        weights={},
        sources=names,
        notes=(f"LayerNorm eps {eps:g}, {why}; QuickGELU",),
    )


def swin(tensors: dict[str, Tensor], body: dict[str, str], projection: str, given: float | None) -> Found:
    """The original Swin's names -> timm's: a stage's downsampling stands at the start of the next one, buffers are computed."""
    if given not in (None, SWIN_EPS):
        raise ConfigError(
            f"--layer-norm-eps {given:g}: these are weights of a Swin, which timm builds with {SWIN_EPS:g} as DIME-FM did; "
            "leave the option out"
        )
    inside = {key: tensors[source] for key, source in body.items()}
    width = need(inside, "patch_embed.proj.weight", 4)[0]
    stages = count_blocks(inside, r"layers\.(\d+)\.")
    depths = tuple(count_blocks(inside, rf"layers\.{stage}\.blocks\.(\d+)\.") for stage in range(stages))
    table = "layers.{}.blocks.0.attn.relative_position_bias_table"
    heads = tuple(need(inside, table.format(stage), 2)[1] for stage in range(stages))
    if (width, depths, heads) not in SWINS:
        known = "; ".join(f"width {w}, blocks {d}, heads {h}" for w, d, h in SWINS)
        raise CheckpointError(f"a Swin of width {width}, blocks {depths}, heads {heads} is not known; known: {known}")
    names = {
        "visual.trunk." + re.sub(r"^layers\.(\d+)\.downsample\.", next_stage, key): source
        for key, source in body.items()
        if not key.endswith(BUFFERS)
    }
    names["visual.head.proj.weight"] = projection
    buffers = [source for key, source in body.items() if key.endswith(BUFFERS)]
    return Found(
        layout=LAYOUT,
        name=SWINS[width, depths, heads],
        kwargs={},
        embed_dim=need(tensors, projection, 2)[1],
        text_tower=False,
        preprocess=Preprocess(),
        weights={},
        sources=names,
        dropped={"buffers, which timm computes": buffers} if buffers else {},
        notes=(f"LayerNorm eps {SWIN_EPS:g}, as every Swin; GELU",),
    )


def next_stage(match: re.Match[str]) -> str:
    """layers.0.downsample. -> layers.1.downsample."""
    return f"layers.{int(match[1]) + 1}.downsample."


def renamed_and_projected(tensors: dict[str, Tensor], names: dict[str, str], projection: str) -> dict[str, Tensor]:
    """By our names; the projection is used as `x @ W`, so that a Linear layer (timm's head) gets it transposed."""
    found = renamed(tensors, names)
    if names.get("visual.head.proj.weight") == projection:
        found["visual.head.proj.weight"] = found["visual.head.proj.weight"].T.contiguous()
    return found
