"""Train a method with a ResNet on images, probe its spectra along the way, and evaluate its features.

    python experiments/resnet_cifar.py --method byol --dataset cifar10 --epochs 400 --out runs/byol

Leaves in the folder: config.json, metrics.jsonl (losses, probes, alarms), checkpoints/, and results.json with the
accuracies. A run that was stopped, or whose machine went away, goes on with the same command and --resume.
"""

import dataclasses
import sys

from rdm_jax.training.command import main
from rdm_jax.training.config import TrainOptions

SMALL = TrainOptions(
    preset="small",
    epochs=2,
    batch_size=128,
    depth=10,
    width=8,
    shrink=16,
    learning_rate=1.0,  # two epochs are short: SGD's recipes have 0.5
    warmup_epochs=0,
    probe=512,
    probe_every=0.2,
    probe_rates=True,
    linear_crops=0,
)
PRESETS = {
    "paper": TrainOptions(),
    "small": SMALL,
    "smoke": dataclasses.replace(
        SMALL,
        preset="smoke",
        dataset="synthetic",
        limit=96,
        epochs=2,
        batch_size=32,
        width=4,
        shrink=64,
        probe=32,
        save_every=1,
    ),
}

if __name__ == "__main__":
    sys.exit(main(PRESETS))
