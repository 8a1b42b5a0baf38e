"""One fake batch forward and backward before real data, so that memory, compile and shape errors show in the first minute."""

import torch
from torch import Tensor

from toolkit.config import Batch, Run
from toolkit.distiller import Distiller
from toolkit.embeddings import unit
from toolkit.errors import ConfigError
from toolkit.models import Model, StoredTeacher, Teacher
from toolkit.step import teacher_embeddings


def try_fake_batch(
    distiller: Distiller, student: Model, teachers: dict[str, Teacher], run: Run, batch: Batch, device: torch.device
) -> list[str]:
    """Run it at full size, on the bare module; returns the names of parameters that the losses do not reach.

    Those are frozen: they would feel weight decay and nothing else. Buffers (BatchNorm) and gradients are left as they
    were. Raises ConfigError when memory does not suffice.
    """
    buffers = {name: buffer.clone() for name, buffer in distiller.named_buffers()}
    try:
        tensors = fake_tensors(student, teachers, run, batch, device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=run.precision == "bf16"):
            distiller(tensors, teacher=teacher_embeddings(teachers, tensors)).total.backward()
    except torch.cuda.OutOfMemoryError as error:
        raise ConfigError(
            f"{batch.batch_size_per_gpu} images per rank and micro-batch do not fit into the GPU ({str(error).splitlines()[0]}); lower "
            "data.batch_size_per_gpu (the losses still see the global batch), or set student.grad_checkpointing=true"
        ) from error
    frozen = []
    for name, parameter in distiller.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.requires_grad_(False)
            frozen.append(name)
        parameter.grad = None
    for name, buffer in distiller.named_buffers():
        buffer.copy_(buffers[name])
    return frozen


def fake_tensors(
    student: Model, teachers: dict[str, Teacher], run: Run, batch: Batch, device: torch.device
) -> dict[str, Tensor]:
    """Tensors of the shapes a real batch of this rank will have."""

    def pictures(side: int) -> Tensor:
        return torch.randint(0, 256, (batch.batch_size_per_gpu, 3, side, side), dtype=torch.uint8, device=device)

    def tokens(length: int) -> Tensor:
        rows = batch.batch_size_per_gpu if run.data.pairs else batch.text_batch_size_per_gpu
        return torch.ones(rows, length, dtype=torch.int64, device=device)

    tensors = {"student_images": pictures(student.preprocess.image_size)}
    if run.student.text_tower:
        tensors["student_tokens"] = tokens(student.context_length)
    for name, teacher in teachers.items():
        if isinstance(teacher, StoredTeacher):
            rows = batch.batch_size_per_gpu if run.data.pairs else batch.text_batch_size_per_gpu
            tensors[f"{name}_image_features"] = unit(
                torch.randn(batch.batch_size_per_gpu, teacher.embed_dim, device=device)
            )
            tensors[f"{name}_text_features"] = unit(torch.randn(rows, teacher.embed_dim, device=device))
            continue
        tensors[f"{name}_images"] = pictures(teacher.preprocess.image_size)
        if teacher.tokenizer_name is not None:
            tensors[f"{name}_tokens"] = tokens(teacher.context_length)
    return tensors
