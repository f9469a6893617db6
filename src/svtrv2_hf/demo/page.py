# SPDX-License-Identifier: Apache-2.0
"""The page, made with Gradio."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import gradio as gr

from ..image_processing_svtrv2 import UnreadableImageError
from .panel import STYLE, hint, message, panel
from .readers import MEGABYTES, Reader, example_files, load_readers, open_upload


TITLE = "SVTRv2 text recognition"
INTRODUCTION = f"""# {TITLE}
Give the crop of a word or of a line of text. An image of a whole page cannot be read."""
# More readings at a time than cores are slower in all; and each may hold a large photograph.
AT_A_TIME = 2


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
            opened = open_upload(image["path"])
        except UnreadableImageError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return [asdict(reader.read(opened)) for reader in readers]

    def show(image: dict[str, Any] | None) -> list[str]:
        """The panels."""
        if image is None:
            return [hint(reader.name) for reader in readers]
        try:
            opened = open_upload(image["path"])
        except UnreadableImageError as error:
            return [message(str(error)), *(hint(reader.name) for reader in readers[1:])]
        return [panel(reader.read(opened), opened) for reader in readers]

    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=len(readers) > 1) as page:
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
        # Gradio checks that a file is one that was sent. It must not open it: it tells with a trace that something is no image.
        image.change(show, image, panels, preprocess=False, api_visibility="private", show_progress="minimal")
        answer = gr.JSON(visible=False)
        gr.Button(visible=False).click(read, image, answer, preprocess=False, api_name="read")
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
    page.queue(default_concurrency_limit=AT_A_TIME)
    page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,  # it would tell of options that this command has not
        max_file_size=f"{MEGABYTES}mb",
        css=STYLE,
        # fonts of the system: others would be fetched from elsewhere
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        footer_links=["api"],
        ssr_mode=False,
        enable_monitoring=False,
    )
    print(f"Reading at {page.local_url}. Ctrl-C ends it.", flush=True)
    if wait:
        page.block_thread()
    return page
