"""open_clip's own distillation on the benchmark's pairs: its arguments, models, data, loss and `train_one_epoch`, as its main has them.

Models are built without weights, which its main cannot do for a teacher; for that alone its main is not called as it is.
Its student has a text tower, which is trained, and its teacher sees the student's crop of each picture.
"""

import sys
import types
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from stopwatch import Stopwatch
from webdataset.tariterators import tar_file_expander

from toolkit.config import Run


class Watched:
    """A loader that tells the stopwatch of each batch."""

    def __init__(self, loader: Any, watch: Stopwatch) -> None:
        """`loader` is open_clip's."""
        self.loader, self.watch = loader, watch
        self.num_batches, self.num_samples = loader.num_batches, loader.num_samples

    def __iter__(self) -> Any:
        iterator = iter(self.loader)
        while True:
            yield self.watch.take(lambda: next(iterator))


def arguments(run: Run, shards: Path, *, amp: bool, world: int) -> list[str]:
    """The command line of open_clip_train that does the run's work on pairs."""
    names = sorted(path.name for path in shards.glob("*.tar"))
    return [
        "--train-data", f"{shards}/{{{names[0][:-4]}..{names[-1][:-4]}}}.tar", "--train-num-samples", "1000000000",
        "--dataset-type", "webdataset", "--batch-size", str(run.data.global_batch_size // world),
        "--workers", str(run.workers), "--precision", "amp_bf16" if amp else "fp32",
        "--model", run.student.name, "--distill-model", run.teacher.name, "--distill-pretrained", "random",
        "--aug-cfg", "scale=(0.08,1.0)", "--lr", str(run.optim.lr), "--warmup", str(run.optim.warmup_steps),
        "--wd", str(run.optim.weight_decay), "--local-loss", "--gather-with-grad", "--epochs", "1",
        "--device", "cuda" if torch.cuda.is_available() else "cpu",
    ]  # fmt: skip


def train(run: Run, watch: Stopwatch, *, amp: bool) -> None:
    """Without end: the stopwatch ends it."""
    stand_in = "pandas" not in sys.modules and find_spec("pandas") is None
    if stand_in:  # its data.py imports it, for CSV lists only
        sys.modules["pandas"] = types.ModuleType("pandas")
        sys.modules["pandas"].__spec__ = ModuleSpec("pandas", None)
    import open_clip
    import open_clip_train.data as theirs

    if stand_in:
        del sys.modules["pandas"]
    from open_clip_train.distributed import init_distributed_device
    from open_clip_train.params import parse_args
    from open_clip_train.scheduler import cosine_lr
    from open_clip_train.train import train_one_epoch

    # webdataset 1.0 marks the end of a shard with an empty member, at which open_clip's grouping stops with a KeyError
    theirs.tar_file_expander = partial(tar_file_expander, eof_value=None)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    args = parse_args(arguments(run, Path(run.data.pairs), amp=amp, world=1))
    device = init_distributed_device(args)
    args.distill, args.save_logs, args.wandb, args.tensorboard = True, False, False, False
    build = partial(open_clip.create_model_and_transforms, precision=args.precision, device=device, output_dict=True)
    model, view, plain = build(args.model, None, aug_cfg=args.aug_cfg)
    teacher, _, _ = build(args.distill_model, None)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    free = {n for n, p in named if p.ndim < 2 or any(word in n for word in ("bn", "ln", "bias", "logit_scale"))}
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in named if n in free], "weight_decay": 0.0},
            {"params": [p for n, p in named if n not in free], "weight_decay": args.wd},
        ],
        lr=args.lr,
        betas=(args.beta1, args.beta2),
        eps=args.eps,
    )
    data = theirs.get_data(args, (view, plain), epoch=0, tokenizer=open_clip.get_tokenizer(args.model))
    scheduler = cosine_lr(optimizer, args.lr, args.warmup, data["train"].dataloader.num_batches)
    data["train"].dataloader = Watched(data["train"].dataloader, watch)
    loss = open_clip.create_loss(args)
    train_one_epoch(model, data, loss, 0, optimizer, None, scheduler, teacher, args)
