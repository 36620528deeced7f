"""The parts of an experiment are imported as its script does it: from beside the script."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "experiments"))
