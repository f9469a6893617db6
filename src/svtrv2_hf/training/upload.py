# SPDX-License-Identifier: Apache-2.0
"""Uploads to the Hub during training."""

from pathlib import Path

from huggingface_hub import upload_folder
from transformers import Trainer
from transformers.trainer_utils import HubStrategy
from transformers.utils import logging


logger = logging.get_logger(__name__)


def upload(trainer: Trainer, checkpoint: Path) -> None:
    """Upload the output folder, if it contains a model, and a complete checkpoint if the strategy includes checkpoints.

    A failure does not end training: it is logged, and the next save uploads again.
    """
    args = trainer.args
    message = f"Training in progress, step {trainer.state.global_step}"
    try:
        if (Path(args.output_dir) / "model.safetensors").is_file():
            trainer.push_to_hub(message, revision=args.hub_revision)
        if args.hub_strategy != HubStrategy.EVERY_SAVE and trainer.is_world_process_zero():
            last = args.hub_strategy == HubStrategy.CHECKPOINT
            upload_folder(
                repo_id=trainer.hub_model_id,
                folder_path=checkpoint,
                path_in_repo="last-checkpoint" if last else checkpoint.name,
                commit_message=f"{message}, checkpoint",
                revision=args.hub_revision,
            )
    except Exception as error:
        logger.warning(f"Step {trainer.state.global_step} was not uploaded to the Hub: {error}")
