"""The claims' margins in plain NumPy float64, one instance at a time, written from the statements alone.

A function takes an instance of its claim, with NumPy arrays in it, and returns one number for each conclusion. It
assumes the hypotheses: what only an ablation switches on is not in it.
"""

from numpy_margins import dynamics, static

MARGINS = static.MARGINS | dynamics.MARGINS
