"""The one primitive: row-wise KL between a teacher's and a student's similarity matrix."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def similarity_kl(
    student_rows: Float[Tensor, "b e"],
    student_columns: Float[Tensor, "n e"],
    teacher_rows: Float[Tensor, "b d"],
    teacher_columns: Float[Tensor, "n d"],
    *,
    logit_scale: float,
) -> Float[Tensor, ""]:
    """Mean over rows of KL(softmax(s A_t B_t') || softmax(s A_s B_s')), s = `logit_scale` (scale / temperature).

    Rows are this rank's, columns the whole batch's. Zero if student equals teacher. Gradient flows to the student's two
    arguments only. fp32 inside, float64 for float64 inputs. Torch's KLDivLoss(reduction="batchmean") of DIME-FM's code.
    """
    with torch.no_grad():
        target = F.log_softmax(logit_scale * teacher_rows.detach() @ teacher_columns.detach().T, dim=-1)
    found = F.log_softmax(logit_scale * student_rows @ student_columns.T, dim=-1)
    return F.kl_div(found, target, reduction="batchmean", log_target=True)
