"""A plain loop in the form of DIME-FM's released trainer, for comparison: what it does in a step, in its order.

Two loaders of the same batch size, one for pictures and one for sentences; student, similarity matrices and losses under
one autocast with a GradScaler, or in fp32 without `amp`; AdamW, no clipping; the rate set after the update; a running mean of
each loss read from the device in every step. Two things are other than there: the teacher is live (the release reads stored
features and has no live form), and several ranks are DDP with all features gathered, without gradient, the rank's own put
back (the release is one process with DataParallel).
"""

import base64
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from photographs import TSV_ROWS, TsvRow
from PIL import Image
from stopwatch import Stopwatch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

from toolkit import distributed
from toolkit.config import Preprocess, Run, batch_arithmetic
from toolkit.data.build import Streams, build_sources
from toolkit.models import Teacher, build_student, build_teacher
from toolkit.models.contract import normalise
from toolkit.schedules import lr_at

Batches = Iterator[dict[str, Tensor]]
SCALE = 100.0
WEIGHTS = {"vl": 0.7, "pvl": 0.3}
TEMPERATURES = {"vl": 1.0, "pvl": 3.0}


class ImageStudent(nn.Module):
    """A student whose forward is its image tower, as DDP wants it."""

    def __init__(self, module: nn.Module) -> None:
        """`module` has encode_image."""
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        """[b, 3, h, w] -> [b, e]."""
        found: Tensor = self.module.encode_image(images)  # type: ignore[operator]
        return found


def train(run: Run, watch: Stopwatch, *, amp: bool, tsv: Path | None) -> None:
    """Without end: the stopwatch ends it. `tsv`: the folder for loaders of its own kind instead of the toolkit's streams."""
    distributed.init()
    device, world = distributed.device(), distributed.world()
    teacher = build_teacher(run.teacher, "fp32", device)
    student = build_student(run.student, teacher)
    network: nn.Module = ImageStudent(student.module).to(device).train()
    if world > 1:
        network = DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None)
    optimizer = torch.optim.AdamW(
        groups(network, run.optim.weight_decay), lr=run.optim.warmup_lr, betas=run.optim.betas
    )
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    scaler = torch.amp.GradScaler(device.type, enabled=amp and half is torch.float16)
    batches = streams(run, teacher, student.preprocess) if tsv is None else tsv_loaders(run, tsv, teacher)
    means = dict.fromkeys([*WEIGHTS, "total"], 0.0)
    for number in itertools.count():
        given = {name: rows.to(device) for name, rows in watch.take(lambda: next(batches)).items()}
        with torch.autocast(device.type, dtype=half, enabled=amp):
            with torch.no_grad():
                pictures = as_floats(given["teacher_images"], teacher.preprocess).to(teacher.dtype)
                image = teacher.module.encode_image(pictures)  # type: ignore[operator]
                text = teacher.module.encode_text(given["teacher_tokens"])  # type: ignore[operator]
            found = network(as_floats(given["student_images"], student.preprocess))
            losses = losses_of(gathered(found), gathered(image.to(found.dtype)), gathered(text.to(found.dtype)))
        optimizer.zero_grad()
        scaler.scale(losses["total"]).backward()
        scaler.step(optimizer)
        scaler.update()
        for group in optimizer.param_groups:
            group["lr"] = lr_at(number, run.optim, run.steps)
        for name, value in losses.items():
            means[name] += (value.item() - means[name]) / (number + 1)


def groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """No decay on vectors, biases and positions."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    free = {name for name, p in named if p.dim() == 1 or name.endswith(".bias") or "positional_embedding" in name}
    return [
        {"params": [p for name, p in named if name not in free], "weight_decay": weight_decay},
        {"params": [p for name, p in named if name in free], "weight_decay": 0.0},
    ]


def as_floats(images: Tensor, preprocess: Preprocess) -> Tensor:
    """The toolkit's bytes are normalised on the device, its own loaders have done so."""
    return normalise(images, preprocess) if images.dtype == torch.uint8 else images


def gathered(rows: Tensor) -> Tensor:
    """Of all ranks, without gradient but for the rank's own."""
    if distributed.world() == 1:
        return rows
    parts = [torch.zeros_like(rows) for _ in range(distributed.world())]
    dist.all_gather(parts, rows.detach().contiguous())
    parts[distributed.rank()] = rows
    return torch.cat(parts)


def losses_of(z: Tensor, v: Tensor, t: Tensor) -> dict[str, Tensor]:
    """Both terms from whole similarity matrices, and their weighted sum."""

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        return SCALE * (a / a.norm(dim=-1, keepdim=True)) @ (b / b.norm(dim=-1, keepdim=True)).T

    def kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
        target = F.softmax(teacher / temperature, dim=1)
        return F.kl_div(F.log_softmax(student / temperature, dim=1), target, reduction="batchmean")

    by_text, target = similarity(z, t), similarity(v, t)
    vl = kl(target, by_text, TEMPERATURES["vl"]) + kl(target.T, by_text.T, TEMPERATURES["vl"])
    pvl = 2 * kl(similarity(v, v), similarity(z, v), TEMPERATURES["pvl"])
    return {"vl": vl, "pvl": pvl, "total": WEIGHTS["vl"] * vl + WEIGHTS["pvl"] * pvl}


def streams(run: Run, teacher: Teacher, student: Preprocess) -> Batches:
    """The very batches that the toolkit's own run gets."""
    batch = batch_arithmetic(run, distributed.world())
    sources = build_sources(
        run.data, batch, student=student, teachers={"teacher": teacher.preprocess},
        tokenizers={"teacher_tokens": teacher.tokenizer()}, seed=run.seed,
    )  # fmt: skip
    both = Streams(sources, rank=distributed.rank(), world=distributed.world(), first_step=0, workers=run.workers)
    while True:
        yield {name: tensor for part in both.next().values() for name, tensor in part.tensors.items()}


class Pictures(Dataset[dict[str, Tensor]]):
    """Each row opened, decoded, shrunk and cropped as the release does, with the teacher's plain view beside it."""

    def __init__(self, path: Path, teacher: Preprocess) -> None:
        """Of an image TSV."""
        self.path = path
        tensor = [T.ToTensor(), T.Normalize(teacher.mean, teacher.std)]
        bicubic = T.InterpolationMode.BICUBIC
        self.crop = T.Compose([T.Resize(256, bicubic), T.RandomResizedCrop(224), T.RandomHorizontalFlip(), *tensor])
        side = teacher.image_size
        self.plain = T.Compose([T.Resize(side, bicubic), T.CenterCrop(side), *tensor])

    def __len__(self) -> int:
        return TSV_ROWS

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        blob = base64.b64decode(TsvRow(self.path).read(row)[1])
        picture = Image.open(io.BytesIO(blob)).convert("RGB")
        return {"student_images": self.crop(picture), "teacher_images": self.plain(picture)}


class Sentences(Dataset[dict[str, Tensor]]):
    """Each row opened, parsed and tokenised."""

    def __init__(self, path: Path, teacher: Teacher) -> None:
        """Of a text TSV."""
        self.path, self.tokenizer = path, teacher.tokenizer()

    def __len__(self) -> int:
        return TSV_ROWS

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        caption = json.loads(TsvRow(self.path).read(row)[1])["captions"][0]
        return {"teacher_tokens": self.tokenizer([caption])[0]}


def tsv_loaders(run: Run, folder: Path, teacher: Teacher) -> Batches:
    """Shuffled, whole batches only, one loader each; the workers of the run."""
    rows = run.data.global_batch_size // distributed.world()
    sets: list[Dataset[dict[str, Tensor]]] = [
        Pictures(folder / "image_00.tsv", teacher.preprocess), Sentences(folder / "text_00.tsv", teacher)
    ]  # fmt: skip
    loaders = [
        DataLoader(
            one, rows, shuffle=True, drop_last=True, num_workers=run.workers, pin_memory=torch.cuda.is_available()
        )
        for one in sets
    ]
    while True:
        for images, texts in zip(*loaders, strict=True):
            yield images | texts
