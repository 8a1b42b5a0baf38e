"""Builds the DeepSpeed engine: who owns which setting, parameter groups, and the engine's traps kept out of sight."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed.utils import (
    lazy_init_hp_params_optimizer_state,
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn

from toolkit import distributed
from toolkit.config import Batch, Optim, Run
from toolkit.config.ds_config import load_ds_config
from toolkit.distiller import Distiller
from toolkit.reshape import Whole

NO_DECAY = ("relative_position_bias_table", "absolute_pos_embed", "positional_embedding", "token_embedding")


def full_ds_config(run: Run, batch: Batch) -> dict[str, Any]:
    """The ds_config with what the run decides filled in."""
    content = load_ds_config(run.deepspeed)
    content |= {
        "train_micro_batch_size_per_gpu": batch.batch_size_per_gpu * batch.grad_accum_steps,
        "gradient_accumulation_steps": 1,  # ours: several backwards, one step
        "managed_gradient_accumulation": False,  # one or several backwards, then one step(): right in every stage
        "gradient_clipping": run.optim.gradient_clipping,  # always written: DeepSpeed's default became 1.0
        "timers": {"throughput": {"enabled": False}},  # DeepSpeed's waits for the device at every forward and step
    }
    if run.optim.optimizer == "sgd":
        content["zero_allow_untested_optimizer"] = True  # ours: measured equal to one process in every stage
    if run.precision == "bf16":
        # Autocast over fp32 parameters. "bf16" would round parameters, and takes a wrong first Adam step in stage 0.
        content["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    return content


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups, decayed and not.

    Not decayed, as in DIME-FM: 1-D tensors, biases, position tables and embeddings, token embeddings.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in named:
        if parameter.requires_grad:
            dims = len(getattr(parameter, "ds_shape", parameter.shape))
            kept = dims <= 1 or name.endswith(".bias") or any(part in name for part in NO_DECAY)
            (free if kept else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_optimizer(module: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """Fused AdamW, or plain SGD for tests of gradient scale."""
    groups = parameter_groups(module.named_parameters(), optim.weight_decay)
    if optim.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=optim.lr)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True)


def prefer_own_ninja() -> None:
    """This environment's programs first: DeepSpeed's CPU operator is compiled again whenever another ninja is found."""
    own = str(Path(sys.executable).parent.resolve())  # not what a link to the environment is called
    if os.environ.get("PATH", "").split(os.pathsep)[0] != own:
        os.environ["PATH"] = f"{own}{os.pathsep}{os.environ.get('PATH', '')}"


def build_engine(run: Run, distiller: Distiller, batch: Batch, device: torch.device) -> Any:
    """`deepspeed.initialize` on the whole trainable module; the process group must exist."""
    content = full_ds_config(run, batch)
    prefer_own_ninja()
    distiller.to(device)
    engine, *_ = deepspeed.initialize(
        model=distiller, optimizer=build_optimizer(distiller, run.optim), config=content, dist_init_required=False
    )
    if device.type == "cpu":
        unlink_shared_buffer()
    if engine.zero_optimization_stage() == 0:
        guard_plain_optimizer(engine.optimizer)
    if engine.zero_optimization_stage() == 3:
        # The sum of losses takes gradients by its terms' parameters inside its forward: they must all be whole there.
        for parameter in distiller.losses.parameters():
            deepspeed.zero.register_external_parameter(distiller.losses, parameter)
    return engine


def unlink_shared_buffer() -> None:
    """Take the name from the 66 MiB in /dev/shm that DeepSpeed's CPU operator shares among ranks.

    All ranks have mapped it by now; with its name it would stay in memory after the run, until the machine is started anew.
    """
    distributed.barrier()
    place = os.getuid(), os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"], distributed.rank()
    Path("/dev/shm", "deepspeed_allreduce_buffer_{}_{}_{}_{}".format(*place)).unlink(missing_ok=True)


def set_lr(engine: Any, lr: float) -> None:
    """Our own step counter drives the rate: DeepSpeed's scheduler falls behind on skipped steps."""
    for group in engine.optimizer.param_groups:
        group["lr"] = lr


def set_weights(engine: Any, weights: dict[str, float]) -> None:
    """Weights of the terms that are computed, for the next step."""
    losses = engine.module.losses
    losses.weights = {name: weights[name] for name in losses.weights}


def backward(engine: Any, loss: torch.Tensor) -> None:
    """Add the gradients of a loss; one or several per `engine.step()`, each reaching every trainable parameter.

    A parameter that the first backward of a step misses would keep the last step's gradient in ZeRO-3.
    """
    engine.backward(loss, scale_wrt_gas=False)


def update(engine: Any) -> bool:
    """Apply the gradients; False, with everything as it was, where they hold a NaN or an infinity on any rank."""
    engine.step()
    return bool(engine.was_step_applied())


def guard_plain_optimizer(optimizer: Any) -> None:
    """Teach ZeRO 0's optimizer what ZeRO 1 to 3 do by themselves, in fp32 too: no update from a gradient that is not finite.

    Gradients have been reduced by then, so that all ranks see the same. DeepSpeed asks for `overflow` afterwards.
    """
    plain = optimizer.step

    def step() -> None:
        found = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        optimizer.overflow = bool(found) and not bool(torch.stack(torch._foreach_norm(found)).isfinite().all())
        if not optimizer.overflow:
            plain()

    optimizer.step = step


def gathered_state(engine: Any, module: nn.Module) -> dict[str, torch.Tensor]:
    """Whole fp32 state of a part of the wrapped module, on the CPU of every rank; a collective in ZeRO-3."""
    parameters = list(module.parameters())
    with deepspeed.zero.GatheredParameters(parameters, enabled=engine.zero_optimization_stage() == 3):
        return {
            name: value.detach().float().cpu().clone() if value.is_floating_point() else value.detach().cpu().clone()
            for name, value in module.state_dict().items()
        }


def trained_names(engine: Any) -> list[str]:
    """Names of the trainable parameters in the order of the optimizer's groups."""
    named = list(engine.module.named_parameters())
    names = {id(parameter): name for name, parameter in named}
    return [names[id(parameter)] for group in parameter_groups(named, 0.0) for parameter in group["params"]]


def load_whole(engine: Any, whole: Whole) -> None:
    """Give every rank its part of a state in no pieces, in any stage and on any number of ranks; a collective in ZeRO-3."""
    stage, optimizer = engine.zero_optimization_stage(), engine.optimizer
    named = {name: parameter for name, parameter in engine.module.named_parameters() if parameter.requires_grad}
    with deepspeed.zero.GatheredParameters(list(engine.module.parameters()), modifier_rank=0, enabled=stage == 3):
        engine.module.load_state_dict(whole.weights)
    kinds = {kind for moments in whole.moments.values() for kind in moments}
    owned = optimizer.fp32_partitioned_groups_flat if stage == 3 else list(named.values())
    owned = optimizer.single_partition_of_fp32_groups if stage in (1, 2) else owned
    for tensor in owned if kinds else ():  # a new optimizer has no state before its first step
        counts = {kind: value.to(tensor.device, copy=True) for kind, value in whole.counts.items()}
        optimizer.state[tensor] = {**counts, **{kind: torch.zeros_like(tensor) for kind in kinds}}
    if stage in (1, 2) and kinds:
        for group, flat in zip(optimizer.bit16_groups, owned, strict=True):
            lazy_init_hp_params_optimizer_state(group, flat, optimizer.state)
    for name, parameter in named.items():
        put(parameter, None, whole.weights[name], optimizer, stage)
        for kind, value in whole.moments[name].items():
            put(parameter, kind, value, optimizer, stage)


def put(parameter: Any, kind: str | None, value: Tensor, optimizer: Any, stage: int) -> None:
    """Set this rank's part of a parameter's fp32 copy (`kind` None) or of its optimizer state."""
    if stage == 0:
        if kind is not None:
            optimizer.state[parameter][kind].copy_(value)
        return
    if stage == 3:  # by pieces: `safe_set_full_*` fails where a parameter does not divide by the ranks (0.19.8)
        size = parameter.ds_tensor.numel()
        piece = torch.zeros(size, dtype=value.dtype)
        mine = value.flatten()[distributed.rank() * size : (distributed.rank() + 1) * size]
        piece[: len(mine)] = mine
        value = piece
    set_weight = safe_set_local_fp32_param if stage == 3 else safe_set_full_fp32_param
    set_moment = safe_set_local_optimizer_state if stage == 3 else safe_set_full_optimizer_state
    set_weight(parameter, value) if kind is None else set_moment(parameter, value, kind)


def first_difference(engine: Any, whole: Whole) -> str:
    """What the engine now holds otherwise than `whole`, bit for bit, or an empty string; a collective."""
    weights = gathered_state(engine, engine.module)
    stage = engine.zero_optimization_stage()
    for name, wanted in whole.weights.items():
        if not torch.equal(weights[name].to(wanted.dtype), wanted):
            return name
    for name, parameter in engine.module.named_parameters():
        if not parameter.requires_grad:
            continue
        for kind, wanted in {"": whole.weights[name], **whole.moments[name]}.items():
            if stage == 0:
                found = engine.optimizer.state[parameter][kind] if kind else parameter
            else:
                found = safe_get_full_optimizer_state(parameter, kind) if kind else safe_get_full_fp32_param(parameter)
            if not torch.equal(found.cpu(), wanted):
                return f"{kind or 'fp32 copy'} of {name}"
    return ""


def build_cpu_operator() -> None:
    """Compile (once per machine and torch version) what DeepSpeed loads when ranks run on CPUs."""
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    prefer_own_ninja()
    ShareMemCommBuilder().load(verbose=False)
