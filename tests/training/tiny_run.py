"""A run of seconds: a perceptron on a few synthetic images, in this process or in one that kills itself."""

import os
import pathlib
import signal
import sys

import numpy as np
import optax

from rdm_jax.methods import get
from rdm_jax.training import (
    Dataset,
    Interrupted,
    Learner,
    Plan,
    Split,
    checkpoint,
    device_mesh,
    mlp_encoder,
    synthetic_images,
    train_run,
)
from rdm_jax.training.augment import method_views

PLAN = Plan(epochs=3, batch=8, size=8, probe_every=1, save_every=1, probe=16)


def dataset(samples=40):
    images, labels, classes = synthetic_images(samples, seed=0)
    part = Split(np.ascontiguousarray(images[:, ::4, ::4]), labels)
    return Dataset("tiny", classes, part, part, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def learner(method="rdm_byol", rate=0.05, **options):
    views = method_views("rdm_byol", size=PLAN.size)
    encoder = mlp_encoder((12,), projector=(), features=6)
    return Learner(encoder, get(method, **options), optax.sgd(rate, momentum=0.9), views, 10, 5, seed=3, ema=0.9)


class Silent:
    """Hears what a run tells, and dies, or gets a signal, at the step that it is told to."""

    def __init__(self, dies=None, number=signal.SIGKILL):
        self.notes, self.steps, self.dies, self.number = [], [], dies, number

    def step(self, done, total, entry):
        self.steps.append(done)
        if entry["kind"] == "train" and done == self.dies:
            os.kill(os.getpid(), self.number)

    def note(self, text):
        self.notes.append(text)


def run(folder, show=None, plan=PLAN, **options):
    folder = pathlib.Path(folder)
    folder.mkdir(exist_ok=True)
    own, mesh = learner(**options), device_mesh()
    return train_run(own, dataset(), plan, folder, mesh=mesh, meta={"a": 1}, show=show or Silent())


def dying(folder, moment):
    """Run until a moment: a step's number, or ``save N``, in the middle of the N-th save of this process."""
    if moment.startswith("save"):
        write, left = checkpoint._write_manifest, [int(moment.split()[1])]

        def dies(*arguments):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            write(*arguments)

        checkpoint._write_manifest = dies
    run(folder, Silent(None if moment.startswith("save") else int(moment)))


def shared(folder, port, process):
    """Run as one of two processes on this machine, stopped and resumed, and leave what process 0 has in the end."""
    import jax

    jax.distributed.initialize(f"localhost:{port}", 2, int(process))
    try:
        run(folder, Silent(5 if process == "1" else None, signal.SIGTERM))
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
    state = run(folder)
    if process == "0":
        np.savez(pathlib.Path(folder) / "end.npz", *[np.asarray(leaf) for leaf in jax.tree.leaves(state)])


def alone(folder):
    """Run on all devices of this process."""
    import jax

    state = run(folder)
    np.savez(pathlib.Path(folder) / "end.npz", *[np.asarray(leaf) for leaf in jax.tree.leaves(state)])


if __name__ == "__main__":
    {"dying": dying, "shared": shared, "alone": alone}[sys.argv[1]](*sys.argv[2:])
