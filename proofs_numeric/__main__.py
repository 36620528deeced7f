"""``python -m proofs_numeric``: verify the statements of docs/theory.md, one file each in this folder."""

import sys
from pathlib import Path

from rdm_jax.claims.__main__ import main
from rdm_jax.claims.runner import find_statements

if __name__ == "__main__":
    sys.exit(main(find_statements(Path(__file__).parent), "proofs_numeric"))
