"""How long and on what the unfolded network is trained."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Numbers that follow from `train.schedule`."""

    patch: int  # pixels across
    stride: int
    batch: int
    n_epoch: int
    learning_rate: float
    decoder_rate: float  # of the map from the visible layer to its colours, which starts from nothing
    hold: float  # weight of the mean square of x1 minus that of the untrained network
    drop_every: int  # epochs, after which the rate is a tenth; 0: it falls as half a cosine
    most_patches: int  # of one epoch, drawn at random where there are more


SCHEDULES = {
    "paper": Schedule(64, 16, 32, 120, 1e-3, 1e-3, 0.0, 40, 4096),
    "tuned": Schedule(64, 32, 8, 4, 1e-4, 1e-2, 8.0, 0, 400),
    "demo": Schedule(64, 32, 8, 2, 1e-4, 1e-2, 8.0, 0, 60),
}
