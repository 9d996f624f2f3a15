"""Trainings whose settings changed begin anew, and keep what they had."""

import logging
import os

from .training import CheckpointError


def go_on_or_anew(train, checkpoint):
    """train(); where it cannot go on from its checkpoint, that is kept as *.old, and it begins anew."""
    try:
        return train()
    except CheckpointError as error:  # before the first step
        logging.getLogger(__name__).warning(
            "%s: it is kept as %s.old, and training begins", error, checkpoint
        )
        os.replace(checkpoint, f"{checkpoint}.old")
        return train()
