"""What all command lines share: presets, refusals with a sentence, folders, signals."""

import dataclasses
import os
import signal

import pytest

from rdm_jax import commandline
from rdm_jax.commandline import Options


@dataclasses.dataclass(frozen=True)
class Sized(Options):
    """Options with a size."""

    steps: int = 100
    """How many steps."""

    def __post_init__(self):
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(f"--steps must be at least 1, got {self.steps}")


PRESETS = {"paper": Sized(), "small": Sized(preset="small", steps=10), "smoke": Sized(preset="smoke", steps=1)}


def read(*words):
    return commandline.read(PRESETS, "try", words)


def test_the_first_preset_is_the_default_and_other_options_override_it():
    assert read() == Sized()
    assert read("--preset", "small") == PRESETS["small"]
    assert read("--preset=small", "--seed", "7") == dataclasses.replace(PRESETS["small"], seed=7)
    for words in (["--steps", "5", "--preset", "smoke"], ["--preset", "smoke", "--steps", "5"]):
        assert read(*words) == Sized(preset="smoke", steps=5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sedes", "3"], "there is no --sedes; did you mean --seed?"),
        (["--preset", "pape"], "paper"),
        (["--preset"], "preset"),
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["--steps", "many"], "invalid literal for int"),
        (["--seed", "-1"], "--seed must be at least 0"),
    ],
)
def test_bad_options_end_with_code_2_and_a_sentence(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        read(*words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(commandline.UsageError, match="not empty: name a new folder"):
        commandline.prepare(tmp_path, "try")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    with pytest.raises(commandline.UsageError, match="is a file"):
        commandline.prepare(tmp_path / "kept", "try")
    with pytest.raises(commandline.UsageError, match="can't be made"):
        commandline.prepare(tmp_path / "kept" / "below", "try")


def test_without_a_name_each_run_gets_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = [commandline.prepare(None, "try") for _ in range(3)]
    assert [str(path) for path in made] == ["results/try", "results/try-2", "results/try-3"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_stop_with_their_code_and_only_within(number, code):
    before = signal.getsignal(number)
    with pytest.raises(commandline.Stopped) as stopped, commandline.signals():
        os.kill(os.getpid(), number)
    assert stopped.value.code == code and signal.getsignal(number) is before
