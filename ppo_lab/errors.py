"""Errors that a user can cause. Each message is one line: what is wrong, where, and what is allowed."""


class LabError(Exception):
    """Base class of errors caused by the input, not by a bug. Notebooks show one line without a traceback."""

    def _render_traceback_(self) -> list[str]:
        # IPython calls this instead of printing a traceback, which would hide the one line that helps.
        return [f"{type(self).__name__}: {self}"]


class ConfigError(LabError, ValueError):
    """A setting does not exist, has the wrong type or is outside its range."""


class EnvError(LabError, RuntimeError):
    """An environment cannot be made, raised an error, died, or returned something that is not a step."""


class NonFiniteError(LabError, FloatingPointError):
    """NaN or infinity in an observation, a reward, a loss or a gradient. No parameter was changed by it."""


class RunError(LabError, OSError):
    """A run folder cannot be made, written or read."""


def one_line(text: object, limit: int = 300) -> str:
    """Convert any text or error to one line of bounded length."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def describe_error(error: BaseException) -> str:
    """Format an error as 'ValueError: its message' in one line."""
    return one_line(f"{type(error).__name__}: {error}".removesuffix(": "))
