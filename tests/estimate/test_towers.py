"""FLOPs and bytes of towers without contents, against formulas and against the same towers run for real."""

import subprocess
import sys
from collections.abc import Callable
from functools import wraps

import pytest
import torch
from torch import Tensor, nn

from toolkit import config
from toolkit.config import Data, Run, Student, Teacher, batch_arithmetic
from toolkit.estimate.models import Trained, empty_student, empty_teacher, measure_student, measure_teacher
from toolkit.models.contract import Model, normalise
from toolkit.models.student import build_student

VIT = Student(name="ViT-B-32-quickgelu", embed_dim=768)
TINY = Student(name="toolkit.playground.towers:scene_student", kwargs={"width": 24})


def run_of(student: Student, batch: int, precision: str = "fp32") -> Run:
    return Run(student=student, data=Data(global_batch_size=batch), losses={}, precision=precision)  # type: ignore[arg-type]


def measured(student: Student, batch: int, precision: str = "fp32") -> Trained:
    run = run_of(student, batch, precision)
    return measure_student(empty_student(student, None), run, batch_arithmetic(run, 1), masked_view=False)


def vit_forward(tokens: int, width: int, layers: int, patch: int, out: int) -> float:
    """Multiply-adds of a ViT as two FLOPs each: patches, attention, MLP of 4 widths, projection."""
    patches = 2 * (tokens - 1) * 3 * patch**2 * width
    attention = 2 * tokens * width * 4 * width + 2 * 2 * tokens**2 * width
    mlp = 2 * 2 * tokens * width * 4 * width
    return patches + layers * (attention + mlp) + 2 * width * out


def in_a_process_of_its_own(test: Callable[[], None]) -> Callable[[], None]:
    """As `dime estimate` runs: what other tests do to torch (DeepSpeed's engines do) changes what a recomputation repeats."""

    @wraps(test)
    def apart() -> None:
        code = f"import runpy; runpy.run_path({__file__!r})[{test.__name__!r}].__wrapped__()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]

    return apart


@in_a_process_of_its_own
def test_vit_b_32_against_the_formula() -> None:
    """Forward to the FLOP; backward twice that, without the gradient by the pixels, and the scores once more."""
    found = measured(VIT, 4)
    forward = vit_forward(50, 768, 12, 32, 768)
    assert found.parameters == found.trainable == 88_045_824
    assert found.plain.forward_flops / 4 == pytest.approx(forward, rel=1e-6)
    assert forward / 1e9 == pytest.approx(8.82, abs=0.02)
    pixels = 2 * 49 * 3 * 32**2 * 768
    assert found.plain.backward_flops / 4 == pytest.approx(2 * forward - pixels, rel=0.01)
    assert found.checkpointed is not None
    again = found.checkpointed.backward_flops - found.plain.backward_flops
    last = 12 * 2 * 50 * 3072 * 768  # nobody needs what a block's last product gives
    assert again / 4 == pytest.approx(forward - pixels - 2 * 768 * 768 - last, rel=0.01)  # the blocks a second time
    assert found.checkpointed.peak_bytes < 0.5 * found.plain.peak_bytes


def test_the_teacher_is_counted_without_its_weights() -> None:
    """ViT-L/14: 428 million parameters, 162 GFLOP per picture and 13.3 per sentence as open_clip's profile has it."""
    run = run_of(VIT, 2, "bf16")
    batch = batch_arithmetic(run, 1)
    cfg = Teacher(name="ViT-L-14-quickgelu", pretrained="openai")
    teacher = empty_teacher(cfg, "bf16")
    assert all(p.is_meta for p in teacher.module.parameters())
    found = measure_teacher(cfg, run, batch, reads_text=True, teacher=teacher)
    assert found.parameters == 427_616_513
    assert found.weight_bytes == pytest.approx(2 * found.parameters, rel=1e-6)
    assert found.images.forward_flops / 2 == pytest.approx(vit_forward(257, 1024, 24, 14, 768), rel=1e-6)
    assert found.images.forward_flops / 2e9 == pytest.approx(162.03, rel=0.01)
    assert found.texts is not None and found.texts.forward_flops / 2e9 == pytest.approx(13.3, rel=0.03)
    assert found.images.backward_flops == 0
    assert measure_teacher(cfg, run, batch, reads_text=False).texts is None


def saved_for_backward(model: Model, batch: int, forward: Callable[[Tensor], Tensor]) -> int:
    """Bytes that autograd really keeps between forward and backward, weights aside, each storage once."""
    weights = {p.untyped_storage().data_ptr() for p in [*model.module.parameters(), *model.module.buffers()]}
    seen: dict[int, int] = {}
    kept = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    side = model.preprocess.image_size
    pictures = torch.zeros(batch, 3, side, side, dtype=torch.uint8)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward(normalise(pictures, model.preprocess))
    output.sum().backward()
    return sum(seen.values())


@pytest.mark.parametrize(("student", "batch"), [(TINY, 64), (VIT, 4)], ids=["tiny", "ViT-B/32"])
def test_activations_are_those_that_are_really_saved(student: Student, batch: int) -> None:
    """Held between forward and backward: what real hooks see being saved, and little beside."""
    model = build_student(student, None)
    module: nn.Module = model.module.train()
    real = saved_for_backward(model, batch, module.encode_image)  # type: ignore[operator,arg-type]
    found = measured(student, batch).plain
    assert found.held_bytes == pytest.approx(real, rel=0.05)
    assert found.held_bytes < found.peak_bytes < 2 * found.held_bytes + 2e8


@pytest.mark.slow
def test_memory_grows_with_the_batch_and_halves_in_bf16() -> None:
    small, large = measured(VIT, 32).plain, measured(VIT, 64).plain
    assert large.held_bytes == pytest.approx(2 * small.held_bytes, rel=0.02)
    half = measured(VIT, 64, "bf16").plain
    copies = 2 * 88_045_824
    assert half.held_bytes - copies < 0.75 * large.held_bytes
    assert half.forward_flops == large.forward_flops


@pytest.mark.slow
def test_a_text_tower_and_a_masked_view_cost_extra() -> None:
    student = Student(name="ViT-B-32-quickgelu", text_tower=True)
    run = run_of(student, 4)
    batch = batch_arithmetic(run, 1)
    both = measure_student(empty_student(student, None), run, batch, masked_view=False)
    image = measured(Student(name="ViT-B-32-quickgelu"), 4)
    assert both.parameters == 151_277_313
    assert (both.plain.forward_flops - image.plain.forward_flops) / 4e9 == pytest.approx(5.96, rel=0.03)
    masked = measure_student(empty_student(VIT, None), run_of(VIT, 4), batch, masked_view=True)
    assert masked.plain.forward_flops == 2 * measured(VIT, 4).plain.forward_flops


def test_swin_and_others_of_timm_have_their_parameters() -> None:
    swin = Student(name="timm/swin_tiny_patch4_window7_224", kwargs={"drop_path": 0.2}, embed_dim=768)
    found = measured(swin, 2)
    assert found.parameters == 28_109_178
    assert found.plain.forward_flops / 2e9 == pytest.approx(2 * 4.5, rel=0.05)
    convolutional = measured(Student(name="timm/resnet18", embed_dim=768), 2)
    assert convolutional.plain.forward_flops > 0


def test_presets_are_not_touched() -> None:
    """Empty initialisation ends with the building: what is built afterwards has weights."""
    empty_student(VIT, None)
    assert not nn.Linear(2, 2).weight.is_meta
    assert set(config.FIELD_PRESETS["dimefm"]) == {"vl", "pvl", "udist"}
