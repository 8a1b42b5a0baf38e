"""The losses, by name. `build_loss` serves outside a run, `build_losses` inside one."""

from toolkit.losses.registry import LOSSES, LossGradients, LossOutput, LossSum, build_loss, build_losses

__all__ = ["LOSSES", "LossGradients", "LossOutput", "LossSum", "build_loss", "build_losses"]
