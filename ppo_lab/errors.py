"""Errors a user can cause, each one clear line: what, where, what is allowed."""


class LabError(Exception):
    """Base of all errors that are the input's fault and not a bug. Notebooks show the one line and no traceback."""

    def _render_traceback_(self) -> list[str]:
        # IPython calls this instead of printing a traceback: a wall of frames hides the one line that helps.
        return [f"{type(self).__name__}: {self}"]


class ConfigError(LabError, ValueError):
    """A setting that does not exist, has the wrong type or lies outside its range."""


class EnvError(LabError, RuntimeError):
    """An environment that cannot be made, raised, died, or answered with something that is not a step."""


class NonFiniteError(LabError, FloatingPointError):
    """NaN or infinity in an observation, a reward, a loss or a gradient. No parameter was changed by it."""


class RunError(LabError, OSError):
    """A run folder that cannot be made, written or read."""


def one_line(text: object, limit: int = 300) -> str:
    """Convert any text or error to one line of bounded length."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def describe_error(error: BaseException) -> str:
    """Format an error as 'ValueError: its message' in one line."""
    return one_line(f"{type(error).__name__}: {error}".removesuffix(": "))
