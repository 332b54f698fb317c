"""The errors kerasdet raises on purpose; the shell command turns them into one sentence and exit code 2."""


class KerasdetError(Exception):
    """Something a user can put right; the message is one sentence for them to read."""


class InputError(KerasdetError, ValueError):
    """Bad input: the message says what was wanted, what came, and where."""


class TrainingError(KerasdetError, RuntimeError):
    """Training cannot go on: the message says at which batch, for which loss term and images."""
