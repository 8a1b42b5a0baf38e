"""What each loss gathers, found by running it."""

from dataclasses import replace

import pytest
import torch

from toolkit.config import FIELD_PRESETS, Data, Run, Student, Teacher, batch_arithmetic
from toolkit.config import losses as options
from toolkit.config.losses import LossOptions
from toolkit.estimate.traffic import Gathered, Traffic, traffic_of


def traffic(
    losses: dict[str, LossOptions],
    *,
    text_tower: bool = False,
    texts: int | None = None,
    widths: tuple[int, ...] = (16,),
) -> Traffic:
    data = Data(pairs="p" if text_tower else "", global_batch_size=64, text_batch_size=texts)
    run = Run(student=Student(name="x", text_tower=text_tower), teacher=Teacher(name="y"), losses=losses, data=data)
    return traffic_of(run, batch_arithmetic(run, 4), 16, widths)


def test_the_papers_losses() -> None:
    """Teacher texts and teacher images, without gradient; the logarithms of both models' columns."""
    found = traffic(FIELD_PRESETS["dimefm"], texts=128)
    assert set(found.gathers) == {Gathered(128, 16, False), Gathered(64, 16, False)} and len(found.gathers) == 2
    assert found.log_sum_exps == (4.0 * 2 * 128,)
    assert found.parameters == 0


def test_udist_sends_gradients_back_and_shares_the_teachers_images() -> None:
    found = traffic(FIELD_PRESETS["dimefm-udist"])
    assert sorted(one.backward for one in found.gathers) == [False, False, True]


def test_products_of_the_losses() -> None:
    """vl and pvl: 5 products of 16 x 64 x 16 each in the GPU kernel."""
    found = traffic(FIELD_PRESETS["dimefm"])
    assert found.flops == pytest.approx(2 * 5 * 2 * 16 * 64 * 16, rel=0.01)


def test_feature_losses_gather_nothing() -> None:
    found = traffic({"fd": options.FD()})
    assert found.gathers == () and found.log_sum_exps == () and found.flops == 0


def test_a_student_text_tower_comes_back_with_a_gradient() -> None:
    found = traffic({"contrastive": options.Contrastive()}, text_tower=True)
    assert found.gathers == (Gathered(64, 16, True),)


def test_every_teacher_of_an_ensemble_is_gathered() -> None:
    found = traffic({"ensemble_kl": options.EnsembleKL()}, widths=(16, 24))
    assert {(one.width, one.backward) for one in found.gathers} == {(16, False), (24, False)}


def test_parameters_of_losses_are_trained_too() -> None:
    assert traffic({"icl": options.ICL()}, text_tower=True).parameters == 1


def test_micro_batches_compared_with_themselves_gather_less_at_a_time() -> None:
    data = Data(global_batch_size=64, batch_size_per_gpu=4, accumulation="per_micro_batch")
    run = Run(student=Student(name="x"), teacher=Teacher(name="y"), losses=FIELD_PRESETS["dimefm"], data=data)
    alone = traffic_of(run, batch_arithmetic(run, 4), 16, (16,))
    whole = replace(run, data=replace(data, accumulation="global_batch"))
    together = traffic_of(whole, batch_arithmetic(whole, 4), 16, (16,))
    assert alone.gathers[0].rows == 16 and together.gathers[0].rows == 64
    assert together.flops == pytest.approx(4 * alone.flops)


def test_random_numbers_are_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    traffic(FIELD_PRESETS["dimefm"])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("kind", sorted(set(options.OPTIONS) - {"dual_head"}))
def test_every_loss_can_be_asked(kind: str) -> None:
    term = replace(options.OPTIONS[kind](), weight=1.0)
    assert traffic({kind: term}, text_tower=True).flops >= 0
