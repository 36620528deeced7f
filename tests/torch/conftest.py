"""Comparisons with torch, run by `make test-torch` only: `make test` passes without torch, and these take minutes."""

import os

if os.environ.get("RDM_JAX_TEST_TORCH"):
    # Compiled as in training, where the other tests are compiled quickly.
    os.environ["XLA_FLAGS"] = ""
else:
    collect_ignore_glob = ["test_*.py"]
