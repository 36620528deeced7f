"""``python -m rdm_jax probe``: the probe of saved features; ``python -m rdm_jax probe --help`` tells its options."""

import sys
from collections.abc import Sequence

from rdm_jax import commandline


def main(arguments: Sequence[str] | None = None) -> int:
    """Call the command that the first word names.

    Args:
        arguments: the words of the command line; None: those of the process.

    Returns:
        The exit code of the command; 2 if there is no such command.
    """
    command, *words = (sys.argv[1:] if arguments is None else arguments) or [""]
    if command in ("-h", "--help"):
        print("usage: python -m rdm_jax probe --online FILE --target FILE [options]; see probe --help")
        return 0
    if command != "probe":
        commandline.complain(f"there is no command {command!r}: call python -m rdm_jax probe")
        return commandline.BAD_USAGE
    from rdm_jax.training import files  # here, since it brings in jax and flax

    return files.main(words)


if __name__ == "__main__":
    sys.exit(main())
