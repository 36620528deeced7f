"""Methods of non-contrastive learning: branch transforms with their theory, losses, and the table of named methods.

``get("byol")`` gives a ``Method``; ``evaluate`` gives its loss on two views, for all methods alike.
"""

from rdm_jax.methods.assignments import (
    QueueState,
    linear_schedule,
    prototypes,
    queued,
    sharpen,
    sinkhorn,
    softmax,
    without_constant_mode,
)
from rdm_jax.methods.centering import center_ema, center_features, l2_normalize
from rdm_jax.methods.closed_form import CorrelationState, direct_copy, direct_pred, direct_set
from rdm_jax.methods.filtering import filtering, parse_filter
from rdm_jax.methods.losses import (
    Loss,
    byol_loss,
    cross_entropy,
    mean_field_cosine,
    negative_cosine,
    squared_error,
)
from rdm_jax.methods.method import Evaluation, Measured, Method, States, evaluate
from rdm_jax.methods.predictors import linear_predictor, mlp_predictor
from rdm_jax.methods.table import METHODS, TRANSFORMS, get
from rdm_jax.methods.transform import Context, Transform, chain, identity, isotropic, make_transform, stop_gradient

__all__ = [
    "METHODS",
    "TRANSFORMS",
    "Context",
    "CorrelationState",
    "Evaluation",
    "Loss",
    "Measured",
    "Method",
    "QueueState",
    "States",
    "Transform",
    "byol_loss",
    "center_ema",
    "center_features",
    "chain",
    "cross_entropy",
    "direct_copy",
    "direct_pred",
    "direct_set",
    "evaluate",
    "filtering",
    "get",
    "identity",
    "isotropic",
    "l2_normalize",
    "linear_predictor",
    "linear_schedule",
    "make_transform",
    "mean_field_cosine",
    "mlp_predictor",
    "negative_cosine",
    "parse_filter",
    "prototypes",
    "queued",
    "sharpen",
    "sinkhorn",
    "softmax",
    "squared_error",
    "stop_gradient",
    "without_constant_mode",
]
