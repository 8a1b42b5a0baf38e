"""Which layout a file has, from its names and what lies beside it."""

from collections.abc import Callable

from toolkit.errors import CheckpointError, ConfigError
from toolkit.imports.clip import JIT_NUMBERS
from toolkit.imports.reading import Weights, first_keys

LAYOUTS = ("auto", "dimefm", "openai", "open_clip", "hugging_face")


def detect(weights: Weights, architecture: str | None) -> tuple[str, str]:
    """(layout, why). Raises CheckpointError for names of none, ConfigError where two layouts share them and mean different
    networks (OpenAI's QuickGELU, open_clip's either).
    """
    names = list(weights.tensors)

    def first(fits: Callable[[str], bool]) -> str:
        return next((name for name in names if fits(name)), "")

    if name := first(lambda name: name.startswith(("vision_model.", "text_model."))):
        return "hugging_face", f"it has {name}"
    if "image_state_dict" in weights.wrappers:
        return "dimefm", "its weights lie under image_state_dict"
    if name := first(
        lambda name: name.startswith("image_encoder.") or name in ("image_projection", "vision_projection")
    ):
        return "dimefm", f"it has {name}"
    if not first(lambda name: name.startswith("visual.")):
        raise CheckpointError(
            f"{weights.path} has no layout that is known: its names are {first_keys(weights.tensors)}. Known: "
            f"{', '.join(LAYOUTS[1:])}; for a network of your own use student.name=package.module:function"
        )
    if architecture is not None:
        return "open_clip", "--architecture is given"
    if "open_clip_config.json" in weights.configs:
        return "open_clip", "open_clip_config.json lies beside it"
    if name := first(lambda name: name in JIT_NUMBERS):
        return "openai", f"it has {name}"
    if name := first(lambda name: name.startswith(("text.", "visual.trunk."))):
        return "open_clip", f"it has {name}"
    if not first(lambda name: not name.startswith("visual.")):
        return "dimefm", "it has visual.* alone, as DIME-FM's training script writes"
    raise ConfigError(
        f"{weights.path} has CLIP's names, and those are OpenAI's (QuickGELU) as well as open_clip's (an architecture of yours); "
        "give --layout openai, or --layout open_clip --architecture NAME"
    )
