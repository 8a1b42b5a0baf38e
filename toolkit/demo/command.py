"""`dime demo RUN`: load student and teacher, open the page, until Ctrl-C."""

import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from toolkit.demo.classify import Classifier, Side
from toolkit.demo.request import (
    MAX_BODY_BYTES,
    MAX_LABEL_LETTERS,
    MAX_LABELS,
    MAX_PICTURE_BYTES,
    MAX_PROMPT_LETTERS,
    PROMPT,
)
from toolkit.demo.samples import samples_of
from toolkit.demo.server import DemoServer
from toolkit.errors import ConfigError
from toolkit.evaluate.loading import RunModels, models_of_run

ALONE = (
    "This run names no teacher, so the student is shown alone; teacher.name=... on the command line sets one beside it."
)


def show_run(folder: Path, which: str, overrides: Sequence[str], *, port: int, open_browser: bool) -> None:
    """Serve the page of a run on 127.0.0.1 and print its address; returns after Ctrl-C.

    `port` 0 takes a free one. Raises ConfigError or CheckpointError when the models or the port cannot be had.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port} is no port; give one from 1024 to 65535, or leave it out for a free one")
    say(f"loading {folder} ...")
    server = server_of(models_of_run(folder, which, overrides), folder, port, say)
    say(f"{server.address}   (this machine only; Ctrl-C ends it)")
    if open_browser:
        threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        say("\ndemo ended")
    finally:
        server.server_close()
        server.classifier.close()


def server_of(found: RunModels, folder: Path, port: int, report: Callable[[str], None]) -> DemoServer:
    """Bound and warmed up, not yet serving."""
    classifier = Classifier(sides_of(found))
    samples, why_none = samples_of(found.run)
    if why_none:
        report(why_none)
    server = DemoServer(port, classifier, about(found, folder, classifier, samples))
    classifier.warm_up()
    return server


def sides_of(found: RunModels) -> list[Side]:
    """Student first."""
    student, teacher = found.student, found.teacher
    sides = [
        Side(
            "student",
            f"{student.name}, {found.checkpoint.name}",
            found.encoders["student"],
            found.logit_scales["student"],
            student.image_params,
            student.text_params if found.text_tower else 0,
            own_text=found.text_tower,
        )
    ]
    if teacher is not None:
        what = " / ".join(filter(None, (teacher.name, found.run.teacher.pretrained)))
        scale = found.logit_scales["teacher"]
        sides.append(Side("teacher", what, teacher, scale, teacher.image_params, teacher.text_params))
    return sides


def about(found: RunModels, folder: Path, classifier: Classifier, samples: dict[str, Any]) -> dict[str, Any]:
    """What the page asks for at its start."""
    return {
        "run": folder.resolve().name,
        "models": [side.about() for side in classifier.sides],
        "alone": ALONE if found.teacher is None else "",
        "prompt": PROMPT,
        "limits": {
            "picture_bytes": MAX_PICTURE_BYTES,
            "body_bytes": MAX_BODY_BYTES,
            "labels": MAX_LABELS,
            "label_letters": MAX_LABEL_LETTERS,
            "prompt_letters": MAX_PROMPT_LETTERS,
        },
        "samples": samples,
    }


def say(line: str) -> None:
    """At once, also into a pipe."""
    print(line, flush=True)
