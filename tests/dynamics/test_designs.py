"""Designs are data: equal by value, and those that make no sense are refused when they are made."""

import pytest

from rdm_jax.dynamics import (
    FeatureDesign,
    LinearDesign,
    branch_field,
    branch_statistics,
    eigenmode_field,
    eigenmode_statistics,
    feature_field,
    feature_statistics,
    isoloss_gains,
    mode_field,
    mode_statistics,
    power_gains,
    sample_branch_field,
)


@pytest.mark.parametrize(
    ("design", "options", "message"),
    [
        (LinearDesign, {"predictor": "learnt"}, "did you mean 'learned'"),
        (LinearDesign, {"target": "ema"}, "target must be one of 'ratio', 'average'"),
        (LinearDesign, {"loss": "sample cosine"}, "loss must be one of 'squared', 'cosine'"),
        (LinearDesign, {"stop_gradient": False, "target": "average"}, "moving average of the weights has no gradient"),
        (FeatureDesign, {"online": "lerned"}, "online must be one of 'learned'"),
        (FeatureDesign, {"loss": "squard"}, "did you mean 'squared'"),
        (FeatureDesign, {"noise": "fixed"}, "noise must be one of"),
        (FeatureDesign, {"loss": "sample cosine", "noise": "persistent"}, "needs both views"),
    ],
)
def test_what_makes_no_sense_is_refused(design, options, message):
    with pytest.raises(ValueError, match=message):
        design(**options)


@pytest.mark.parametrize("make", [eigenmode_field, branch_field, sample_branch_field, eigenmode_statistics])
def test_equal_linear_designs_share_one_function(make):
    assert make(LinearDesign(isoloss_gains)) is make(LinearDesign(predictor=isoloss_gains, isotropic=False))
    assert make(LinearDesign(isoloss_gains)) is not make(LinearDesign(isoloss_gains, isotropic=True))


@pytest.mark.parametrize("make", [mode_field, feature_field, mode_statistics, feature_statistics])
def test_equal_feature_designs_share_one_function(make):
    assert make(FeatureDesign(online=power_gains)) is make(FeatureDesign("cosine", power_gains))
    assert make(FeatureDesign(online=power_gains)) is not make(FeatureDesign(target=power_gains))


def test_branches_and_samples_share_their_statistics():
    assert branch_statistics(LinearDesign()) is branch_statistics(LinearDesign())


def test_there_is_no_mean_field_of_the_cosine_of_each_sample():
    with pytest.raises(ValueError, match="has no mean field"):
        mode_field(FeatureDesign(loss="sample cosine"))
