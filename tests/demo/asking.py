"""Runs to show, and questions to ask of their page."""

import base64
import http.client
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from toolkit import config
from toolkit.checkpoint.files import STATE, folder_of, publish, written
from toolkit.config import Run
from toolkit.config.resolve import merge, parse_overrides
from toolkit.demo.server import DemoServer
from toolkit.models.build import WEIGHTS_NAME, build_model, write_card

STUDENT = "toolkit.playground.towers:scene_student"
CLIP = "toolkit.playground.towers:scene_clip"
UNPAIRED = ("losses.feature.weight=1", "data.images=unread")
PAIRED = ("losses.contrastive.weight=1", "data.pairs=unread", "student.text_tower=true")


def save_run(folder: Path, name: str, *overrides: str) -> Path:
    """A run whose student is random, with a complete checkpoint after step 3."""
    text_tower = name == CLIP
    torch.manual_seed(3)
    model = build_model(name, {"width": 8}, embed_dim=128, text_tower=text_tower, asked_by="student.name")
    aside = folder / "checkpoints" / "aside"
    aside.mkdir(parents=True)
    write_card(model, {"width": 8}, text_tower, aside)
    save_file({key: value.contiguous() for key, value in model.module.state_dict().items()}, aside / WEIGHTS_NAME)
    (aside / STATE).write_text(json.dumps({"step": 3, "best_step": None}))
    publish(aside, folder_of(folder, 3), {path.name: written(path) for path in aside.iterdir()})
    words = [f"out_dir={folder}", f"student.name={name}", "precision=fp32"]
    words += [*(PAIRED if text_tower else UNPAIRED), *overrides]
    config.save(merge(Run(), parse_overrides(words)), folder / "config.yaml")
    return folder


def picture() -> bytes:
    """A PNG of 32 pixels, the models' own size, so that nothing is resized."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def question(labels: list[Any], data: bytes | None = None, **more: Any) -> bytes:
    """As the page sends it."""
    shown = base64.b64encode(picture() if data is None else data).decode()
    return json.dumps({"picture": shown, "labels": labels, "prompt": "a {} here", **more}).encode()


def ask(
    server: DemoServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], Any]:
    """Status, headers, and the body: from JSON where it is that."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    given = {"Content-Type": "application/json"} if body is not None else {}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body, given)
        reply = connection.getresponse()
        content = reply.read()
    finally:
        connection.close()
    found = dict(reply.getheaders())
    return reply.status, found, json.loads(content) if found.get("Content-Type") == "application/json" else content
