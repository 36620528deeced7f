"""A formula and its tests, for the test of the judge; pytest collects this file only when it is named."""

import os


def double(x):
    return 2 * x


def test_double():
    assert double(3) == 6


def test_fails_anyway():
    assert os.sep == "?"
