"""Training: encoders, data whose view noise is known, one step for every method, and theory beside what is measured.

``make_step`` trains, ``train`` does so many times in one scan, ``probe`` measures and predicts, also in other people's
loops, and ``probe_state`` does so for a run. ``load`` gives image sets and ``augment_views`` random views of them.
"""

from rdm_jax.training.augment import ViewConfig, augment, augment_views, evaluation_view, method_views
from rdm_jax.training.board import Board, open_board, scalars
from rdm_jax.training.checkpoint import CheckpointError, latest, read_meta, restore, save, saved_steps
from rdm_jax.training.data import load
from rdm_jax.training.dataset import DataNotFound, Dataset, Split, batch_order
from rdm_jax.training.diagnosis import Diagnosis, diagnose, span
from rdm_jax.training.evaluation import (
    OnlineProbe,
    ProbeResult,
    embed,
    init_online_probe,
    knn_accuracy,
    linear_probe,
    online_accuracy,
    update_online_probe,
)
from rdm_jax.training.judging import Rates, entropy_speed, judge_rates, judge_signs, ladder, relative_rates
from rdm_jax.training.latents import InputMoments, LatentModel, input_moments, latent_model, two_views
from rdm_jax.training.learner import Learner, Learning, Measures, device_mesh, init_learning, make_update
from rdm_jax.training.measure import Moments, measure, merge
from rdm_jax.training.monitor import Velocities, measure_state, mode_rates, probe_state, read_state, velocities
from rdm_jax.training.networks import (
    BatchNorm,
    Encoded,
    Encoder,
    Projector,
    encode_views,
    mlp_encoder,
    module_encoder,
)
from rdm_jax.training.optimizers import Descent, lars, one_dimensional, sgd, warmup_cosine
from rdm_jax.training.places import in_store, place, write_text
from rdm_jax.training.probe import (
    Errors,
    Followed,
    LossKind,
    Predicted,
    Record,
    StageRecord,
    follow,
    loss_kind,
    probe,
    rank_errors,
    read,
)
from rdm_jax.training.recipes import Recipe, make_encoder, make_optimizer, recipe
from rdm_jax.training.resnet import resnet_encoder
from rdm_jax.training.run import Diverged, Interrupted, Plan, alarms, probe_views, train_run
from rdm_jax.training.step import (
    Params,
    Pass,
    Target,
    TrainState,
    ema_schedule,
    forward,
    init_state,
    make_step,
    train,
)
from rdm_jax.training.stream import Batch, Stream, stream_batches
from rdm_jax.training.synthetic_images import synthetic_images
from rdm_jax.training.watch import Instants, Metrics, Show, Watch, read_metrics

__all__ = [
    "Batch",
    "BatchNorm",
    "Board",
    "CheckpointError",
    "DataNotFound",
    "Dataset",
    "Descent",
    "Diagnosis",
    "Diverged",
    "Encoded",
    "Encoder",
    "Errors",
    "Followed",
    "InputMoments",
    "Instants",
    "Interrupted",
    "LatentModel",
    "Learner",
    "Learning",
    "LossKind",
    "Measures",
    "Metrics",
    "Moments",
    "OnlineProbe",
    "Params",
    "Pass",
    "Plan",
    "Predicted",
    "ProbeResult",
    "Projector",
    "Rates",
    "Recipe",
    "Record",
    "Show",
    "Split",
    "StageRecord",
    "Stream",
    "Target",
    "TrainState",
    "Velocities",
    "ViewConfig",
    "Watch",
    "alarms",
    "augment",
    "augment_views",
    "batch_order",
    "device_mesh",
    "diagnose",
    "ema_schedule",
    "embed",
    "encode_views",
    "entropy_speed",
    "evaluation_view",
    "follow",
    "forward",
    "in_store",
    "init_learning",
    "init_online_probe",
    "init_state",
    "input_moments",
    "judge_rates",
    "judge_signs",
    "knn_accuracy",
    "ladder",
    "lars",
    "latent_model",
    "latest",
    "linear_probe",
    "load",
    "loss_kind",
    "make_encoder",
    "make_optimizer",
    "make_step",
    "make_update",
    "measure",
    "measure_state",
    "merge",
    "method_views",
    "mlp_encoder",
    "mode_rates",
    "module_encoder",
    "one_dimensional",
    "online_accuracy",
    "open_board",
    "place",
    "probe",
    "probe_state",
    "probe_views",
    "rank_errors",
    "read",
    "read_meta",
    "read_metrics",
    "read_state",
    "recipe",
    "relative_rates",
    "resnet_encoder",
    "restore",
    "save",
    "saved_steps",
    "scalars",
    "sgd",
    "span",
    "stream_batches",
    "synthetic_images",
    "train",
    "train_run",
    "two_views",
    "update_online_probe",
    "velocities",
    "warmup_cosine",
    "write_text",
]
