"""What accumulation must not do beside the gradients: count BatchNorm twice, draw other masks, hide a module's own forward."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from toolkit.config import Batch, Preprocess
from toolkit.distiller import Distiller, Tower, blanked, route_through_forward
from toolkit.losses import LossOutput, LossSum, build_loss
from toolkit.models import Teacher
from toolkit.models.contract import normalise
from toolkit.step import Step

ROWS, WIDTH = 12, 6
CPU = torch.device("cpu")


class Normed(nn.Module):
    """A tower with BatchNorm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(3 * 64, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, WIDTH)
        )

    def encode_image(self, images: Tensor) -> Tensor:
        return self.body(images)


class Engine:
    """A module that is called as DeepSpeed's engine is."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def backward(self, loss: Tensor, scale_wrt_gas: bool) -> None:
        loss.backward()


def step_with(student: nn.Module, terms: dict[str, nn.Module], accumulation: int) -> tuple[Step, Distiller]:
    losses = LossSum(terms, dict.fromkeys(terms, 1.0))
    distiller = Distiller(student, losses, Preprocess(image_size=8), text_tower=False).train()
    teacher = Teacher.__new__(Teacher)  # its features are in the batch
    teacher.logit_scale = teacher.logit_bias = None
    size = ROWS // accumulation
    batch = Batch(1, size, size, ROWS, ROWS, accumulation)
    return Step(Engine(distiller), {"teacher": teacher}, batch, CPU, seed=0), distiller


def tensors() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (ROWS, 3, 8, 8), dtype=torch.uint8, generator=draw)
    return {"student_images": images, "teacher_image_features": torch.randn(ROWS, WIDTH, generator=draw)}


def test_batchnorm_counts_each_row_once() -> None:
    """The first pass leaves its buffers alone: the statistics are those of one ordinary pass over the micro-batches."""
    torch.manual_seed(0)
    student = Normed()
    step, distiller = step_with(student, {"pvl": build_loss("pvl")}, accumulation=3)
    step.forward_backward(tensors(), 0, check=lambda output: output)
    torch.manual_seed(0)
    other = Normed()
    for part in tensors()["student_images"].chunk(3):
        other.encode_image(normalise(part, Preprocess()))
    assert int(student.body[2].num_batches_tracked) == 3
    torch.testing.assert_close(student.body[2].running_mean, other.body[2].running_mean)
    torch.testing.assert_close(student.body[2].running_var, other.body[2].running_var)
    assert all(p.grad is not None for p in distiller.parameters())


def test_check_comes_before_any_gradient() -> None:
    """A loss that is not finite stops the run with the parameters' gradients untouched."""
    step, distiller = step_with(Normed(), {"pvl": build_loss("pvl")}, accumulation=2)

    def stop(output: Any) -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        step.forward_backward(tensors(), 0, check=stop)
    assert all(p.grad is None for p in distiller.parameters())


def test_per_micro_batch_reports_means() -> None:
    """Values are means over micro-batches, without graph."""
    step, _ = step_with(Normed(), {"pvl": build_loss("pvl"), "udist": build_loss("udist")}, accumulation=2)
    step.per_micro_batch = True
    seen = []

    def note(found: LossOutput) -> LossOutput:
        seen.append(found.terms["pvl"].item())
        return found

    output = step.forward_backward(tensors(), 0, check=note, observe=True)
    assert output.terms["pvl"].item() == pytest.approx(sum(seen) / 2) and not output.total.requires_grad
    assert {"pvl_target_entropy", "pvl_top1_agreement", "pvl_gradient_share"} <= set(output.seen)


@pytest.mark.parametrize("side", [32, 224])
def test_masked_view(side: int) -> None:
    """Exactly that share of the patches is at the mean, other ones for each picture; drawn from torch's generator."""
    pictures = torch.ones(5, 3, side, side)
    torch.manual_seed(3)
    found = blanked(pictures, 0.75)
    torch.manual_seed(3)
    assert torch.equal(found, blanked(pictures, 0.75))
    assert found.mean(dim=(1, 2, 3)).tolist() == pytest.approx([0.25] * 5, abs=0.01)
    assert not torch.equal(found[0], found[1])


def test_masked_view_feeds_its_loss() -> None:
    """mfd trains through the masked pictures, accumulation included, and the gradients agree with one pass."""
    gradients = []
    for accumulation in (1, 2):
        torch.manual_seed(0)
        student = nn.Module()
        student.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, WIDTH))
        student.encode_image = student.body.forward
        step, distiller = step_with(student, {"mfd": build_loss("mfd", mask_fraction=1.0)}, accumulation)
        step.forward_backward(tensors(), 0, check=lambda output: output)
        gradients.append([p.grad for p in distiller.parameters()])
    torch.testing.assert_close(*gradients)


def test_a_modules_own_forward_still_works() -> None:
    """`encode_image = forward` is how most students are written."""
    model = nn.Linear(4, 2)
    model.encode_image = model.forward
    route_through_forward(model, {"image": model.encode_image})
    given = torch.randn(3, 4)
    assert torch.equal(model(given), model(Tower("image"), given))
