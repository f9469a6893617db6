# SPDX-License-Identifier: Apache-2.0
"""The page, made with Gradio."""

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
from .panel import STYLE, hint, message, panel
from .readers import Reader, example_files, load_readers, open_upload
from .uploads import MEGABYTES, SECONDS, upload_folder, uploaded_file


TITLE = "SVTRv2 text recognition"
INTRODUCTION = f"""# {TITLE}
Give the crop of a word or of a line of text. An image of a whole page cannot be read."""
# More readings at a time than cores are slower in all; and each may hold a large photograph.
AT_A_TIME = 2
WAITING = 32  # readings that may wait for their turn
SESSIONS = 100  # visitors that Gradio keeps the state and the answers of


def build_page(readers: Sequence[Reader]) -> gr.Blocks:
    """A page that reads an image with each of the readers, beside each other.

    The endpoint `/read` answers with the readings as JSON.
    """

    def read(image: dict[str, Any] | None) -> list[dict[str, Any]]:
        """Reads the image of a word or a line of text with each model.

        Args:
            image: a file.

        Returns:
            For each model `{"model", "text", "score", "characters", "height", "width", "milliseconds"}`: the characters
            with score and place, x in pixels of the image, and the size in pixels that the image was resized to.
        """
        if image is None:
            raise gr.Error("There is no image to read.", print_exception=False)
        try:
            opened = open_upload(uploaded_file(image))
        except UnreadableImageError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return [asdict(reader.read(opened)) for reader in readers]

    def show(image: dict[str, Any] | None) -> list[str]:
        """The panels."""
        if image is None:
            return [hint(reader.name) for reader in readers]
        try:
            opened = open_upload(uploaded_file(image))
        except UnreadableImageError as error:
            return [message(str(error)), *(hint(reader.name) for reader in readers[1:])]
        return [panel(reader.read(opened), opened) for reader in readers]

    upload_folder()  # before Gradio looks for it
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, fill_width=len(readers) > 1, delete_cache=(60, SECONDS)
    ) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                image = gr.Image(
                    label="Word or line",
                    type="filepath",
                    sources=["upload", "webcam", "clipboard"],
                    height=260,
                    # the camera at the back, and not as a mirror: text could not be read
                    webcam_options=gr.WebcamOptions(
                        mirror=False, constraints={"video": {"facingMode": {"ideal": "environment"}}}
                    ),
                )
            with gr.Column(scale=3, min_width=300), gr.Row():
                panels = []
                for reader in readers:
                    with gr.Column(min_width=260):  # on a phone, one below the other
                        panels.append(gr.HTML(hint(reader.name), min_height=120))
        gr.Examples([str(file) for file in example_files()], image, label="Examples", examples_per_page=9)
        # Gradio must not open the file: it prints a traceback for what is not an image.
        one = {"preprocess": False, "concurrency_id": "reading", "concurrency_limit": AT_A_TIME}
        image.change(show, image, panels, api_visibility="private", show_progress="minimal", **one)
        answer = gr.JSON(visible=False)
        gr.Button(visible=False).click(read, image, answer, api_name="read", **one)
    return page


def serve(models: Sequence[str], host: str | None = None, port: int | None = None, wait: bool = True) -> gr.Blocks:
    """Serves the page.

    Args:
        models: folders, names on the Hub, or "default".
        host: the address to listen at (default: `GRADIO_SERVER_NAME`, or this machine alone).
        port: (default: `GRADIO_SERVER_PORT`, or the first that is free from 7860 on).
        wait: until Ctrl-C; otherwise the page is served in the background.
    """
    page = build_page(load_readers(models))
    page.queue(max_size=WAITING, api_open=False)
    takes = {
        number: "image" if not function.preprocess else len(example_files()) for number, function in page.fns.items()
    }
    waiting = page._queue.pending_event_ids_session
    page._queue.pending_messages_per_session.max_size = SESSIONS  # of answers that were not fetched
    page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,  # it would tell of options that this command has not
        max_file_size=f"{MEGABYTES}mb",
        state_session_capacity=SESSIONS,
        app_kwargs={
            "middleware": [Middleware(Gate, inputs=takes, waiting=lambda session: len(waiting.get(session, ())))]
        },
        css=STYLE,
        # fonts of the system: others would be fetched from elsewhere
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        footer_links=["api"],
        ssr_mode=False,
        enable_monitoring=False,
    )
    print(f"Reading at {page.local_url}. Ctrl-C ends it.", flush=True)
    if wait:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the files of visitors are deleted
        page.block_thread()
    return page
