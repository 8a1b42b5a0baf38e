"""A checkpoint's state in no pieces, so that another number of ranks or another ZeRO stage can go on from it.

DeepSpeed writes the optimizer's state as each rank holds it: flat partitions in ZeRO 1 and 2, a piece of every parameter
in ZeRO 3. Here they are put together in memory; nothing is written.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from toolkit.errors import CheckpointError

Pieces = dict[str, dict[str, list[Tensor]]]
"""By parameter, then by kind of state, in the order of the ranks."""
WEIGHT = "weight"
"""The kind of state that is the fp32 parameter itself; the others have the optimizer's names (exp_avg, ...)."""


@dataclass
class Whole:
    """State of student, losses and optimizer in no pieces."""

    weights: dict[str, Tensor]
    """Parameters and buffers, by their name in the wrapped module."""
    moments: dict[str, dict[str, Tensor]]
    """Optimizer's state of every trained parameter, of its shape, by parameter and name (exp_avg, ...)."""
    counts: dict[str, Tensor]
    """What the optimizer counts for all parameters alike (`step`); 0-d."""


def read_whole(folder: Path, files: Sequence[str], trained: Sequence[str]) -> Whole:
    """Put together what DeepSpeed wrote into `folder`; `files` are names whose hash has been checked, no others are read.

    No code of theirs runs: tensors, plain values, and the classes that `torch.serialization.safe_globals` allows.
    `trained` names the trainable parameters in the optimizer's order (ZeRO 0 knows them by number). Raises
    CheckpointError where the files are not as DeepSpeed 0.19 writes them.
    """
    try:
        models = [content_of(folder / name) for name in of_ranks(files, "model_states.pt")]
        states = [content_of(folder / name)["optimizer_state_dict"] for name in of_ranks(files, "optim_states.pt")]
        weights = dict(models[0]["module"])
        if not states:
            moments, counts = of_plain(models[0]["optimizer"], trained)
            return Whole(weights, moments, counts)
        if int(states[0]["zero_stage"]) == 3:
            shapes = {name: shape for group in models[0]["param_shapes"] for name, shape in group.items()}
            pieces, counts = collected(of_parameters(state, models[0]["param_shapes"], len(states)) for state in states)
            shapes |= models[0]["frozen_param_shapes"] or {}
            for model in models:
                for name, piece in (model["frozen_param_fragments"] or {}).items():
                    pieces.setdefault(name, {}).setdefault(WEIGHT, []).append(piece)
        else:
            shapes = {name: weights[name].shape for name in trained}
            pieces, counts = collected(of_partitions(state) for state in states)
        joined = {
            name: {kind: torch.cat([part.flatten() for part in parts])[: shapes[name].numel()].view(shapes[name])
                   for kind, parts in kinds.items()}
            for name, kinds in pieces.items()
        }  # fmt: skip
        weights |= {name: kinds.pop(WEIGHT) for name, kinds in joined.items()}
        return Whole(weights, {name: joined[name] for name in trained}, counts)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError, UnpicklingError) as error:
        raise CheckpointError(
            f"{folder} is not laid out as DeepSpeed 0.19 does ({type(error).__name__}: {error}); go on with the number of ranks and the "
            "ds_config that wrote it"
        ) from error


def of_ranks(files: Sequence[str], ending: str) -> list[str]:
    """Names with that ending, in the order of the ranks that wrote them (10 after 9)."""
    found = {tuple(map(int, re.findall(r"rank_(\d+)", name))): name for name in files if name.endswith(ending)}
    return [found[ranks] for ranks in sorted(found)]


def content_of(path: Path) -> Any:
    """What one of DeepSpeed's files holds; tensors stay on disk until they are read."""
    return torch.load(path, map_location="cpu", mmap=True, weights_only=True)


Piece = tuple[str, str, Tensor]
"""Parameter, kind of state, and this rank's part of it; a count has no parameter."""


def of_plain(
    optimizer: dict[str, Any], trained: Sequence[str]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """ZeRO 0: torch's own state dict, by number of the parameter."""
    numbers = [number for group in optimizer["param_groups"] for number in group["params"]]
    if len(numbers) != len(trained):
        raise ValueError(f"{len(numbers)} parameters were trained there, {len(trained)} are here")
    by_name = zip(trained, (optimizer["state"].get(number, {}) for number in numbers), strict=True)
    pieces, counts = collected(
        (("" if not value.dim() else name, kind, value) for kind, value in state.items()) for name, state in by_name
    )
    return {name: {kind: parts[0] for kind, parts in pieces.get(name, {}).items()} for name in trained}, counts


def of_partitions(state: dict[str, Any]) -> Iterator[Piece]:
    """ZeRO 1 and 2: of each group of parameters one rank holds a stretch, which may begin and end inside a parameter."""
    for group, places in enumerate(state["param_slice_mappings"]):
        own = state["base_optimizer_state"]["state"].get(group, {})
        flat = {WEIGHT: state["single_partition_of_fp32_groups"][group], **own}
        yield from (("", kind, value) for kind, value in own.items() if not value.dim())
        for name, place in places.items():
            yield from (
                (name, kind, value.narrow(0, place.start, place.numel)) for kind, value in flat.items() if value.dim()
            )


def of_parameters(state: dict[str, Any], shapes: Sequence[dict[str, torch.Size]], ranks: int) -> Iterator[Piece]:
    """ZeRO 3: every rank holds an equal piece of every parameter, the last ones padded."""
    for group, members in enumerate(shapes):
        own = state["optimizer_state_dict"]["state"].get(group, {})
        flat = {WEIGHT: state["fp32_flat_groups"][group], **own}
        yield from (("", kind, value) for kind, value in own.items() if not value.dim())
        start = 0
        for name, shape in members.items():
            size = -(-shape.numel() // ranks)
            yield from ((name, kind, value.narrow(0, start, size)) for kind, value in flat.items() if value.dim())
            start += size


def collected(ranks: Iterator[Iterator[Piece]]) -> tuple[Pieces, dict[str, Tensor]]:
    """The pieces of all ranks by parameter, and the counts, on which they must agree."""
    pieces: Pieces = defaultdict(lambda: defaultdict(list))
    counts: dict[str, Tensor] = {}
    for own in ranks:
        for name, kind, value in own:
            if name:
                pieces[name][kind].append(value)
            elif not torch.equal(counts.setdefault(kind, value), value):
                raise ValueError(f"parts of the optimizer differ in '{kind}': {counts[kind]} and {value}")
    return pieces, counts
