# SPDX-License-Identifier: Apache-2.0
"""The page, built with Gradio."""

import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from ..image_loading_svtrv2 import UnreadableImageError
from .gate import Gate
from .models import DemoModel, example_files, load_models, open_upload
from .panel import TEMPLATES, message, panel, placeholder
from .uploads import MEGABYTES, SECONDS, upload_folder, uploaded_file


TITLE = "SVTRv2 text recognition"
INTRODUCTION = f"""# {TITLE}
Upload the crop of a word or a line of text. Images of entire pages are not supported."""
# More predictions at the same time than cores would be slower, and each may hold a large photo.
AT_A_TIME = 2
WAITING = 32  # maximum number of predictions that wait in the queue
SESSIONS = 100  # number of visitors whose state and answers Gradio keeps


def build_page(models: Sequence[DemoModel]) -> gr.Blocks:
    """Build a page that shows the predictions of the models side by side, and an endpoint `/read` that returns them as JSON."""

    def read(image: dict[str, Any] | None) -> list[dict[str, Any]]:
        """Recognize the text of a word or a line with each model.

        Args:
            image: a file.

        Returns:
            for each model `{"model", "text", "score", "characters", "height", "width", "milliseconds"}`: the characters
            with score and position, in pixels of the image, and the size of the resized image in pixels.
        """
        if image is None:
            raise gr.Error("The request has no image.", print_exception=False)
        try:
            opened = open_upload(uploaded_file(image))
        except UnreadableImageError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return [asdict(model.predict(opened)) for model in models]

    def show(image: dict[str, Any] | None) -> list[str]:
        placeholders = [placeholder(model.name) for model in models]
        if image is None:
            return placeholders
        try:
            opened = open_upload(uploaded_file(image))
        except UnreadableImageError as error:
            return [message(str(error)), *placeholders[1:]]
        return [panel(model.predict(opened), opened) for model in models]

    upload_folder()  # before Gradio looks for it
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, fill_width=len(models) > 1, delete_cache=(60, SECONDS)
    ) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                image = gr.Image(
                    label="Word or line",
                    type="filepath",
                    sources=["upload", "webcam", "clipboard"],
                    height=260,
                    # the camera on the back of a phone, not mirrored
                    webcam_options=gr.WebcamOptions(
                        mirror=False, constraints={"video": {"facingMode": {"ideal": "environment"}}}
                    ),
                )
            with gr.Column(scale=3, min_width=300), gr.Row():
                panels = []
                for model in models:
                    with gr.Column(min_width=260):  # on a phone, one below the other
                        panels.append(gr.HTML(placeholder(model.name), min_height=120))
        gr.Examples([str(file) for file in example_files()], image, label="Examples", examples_per_page=9)
        # Gradio must not open the file, since it prints a traceback if it is not an image.
        options = {"preprocess": False, "concurrency_id": "predict", "concurrency_limit": AT_A_TIME}
        image.change(show, image, panels, api_visibility="private", show_progress="minimal", **options)
        answer = gr.JSON(visible=False)
        gr.Button(visible=False).click(read, image, answer, api_name="read", **options)
    return page


def serve(
    models: Sequence[str],
    host: str | None = None,
    port: int | None = None,
    wait: bool = True,
    backend: str = "torch",
    file_name: str | None = None,
) -> gr.Blocks:
    """Serve the page.

    Args:
        models: folders, Hub ids, or "default".
        host: address to listen on; default: `GRADIO_SERVER_NAME`, or this machine only.
        port: port to listen on; default: `GRADIO_SERVER_PORT`, or the first free one from 7860.
        wait: wait until Ctrl-C; otherwise serve in the background.
        backend: "torch", or a backend of [`SVTRv2ForCTCRuntime`], of which `file_name` is a file.
    """
    page = build_page(load_models(models, backend, file_name))
    page.queue(max_size=WAITING, api_open=False)
    inputs = {
        number: "image" if not function.preprocess else len(example_files()) for number, function in page.fns.items()
    }
    waiting = page._queue.pending_event_ids_session
    page._queue.pending_messages_per_session.max_size = SESSIONS  # number of visitors with unfetched answers
    page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,  # its message recommends options that this command does not have
        max_file_size=f"{MEGABYTES}mb",
        state_session_capacity=SESSIONS,
        app_kwargs={
            "middleware": [Middleware(Gate, inputs=inputs, waiting=lambda session: len(waiting.get(session, ())))]
        },
        css=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
        # fonts of the system, since others are downloaded
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        footer_links=["api"],
        ssr_mode=False,
        enable_monitoring=False,
    )
    print(f"Serving {page.local_url}. Press Ctrl-C to stop.", flush=True)
    if wait:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # deletes the uploaded files
        page.block_thread()
    return page
