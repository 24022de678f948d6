"""The standard streams and the arguments of a process, whatever the locale is and whoever reads the output."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any


def prepare() -> None:
    r"""Open the standard streams that are closed, and let no character fail for the encoding of the output.

    A character that the encoding does not have is printed as an escape such as \xfc or \u4f60. The first function of
    every process that prints. Without it, a file that is opened later gets the number of a closed stream, and
    messages of libraries are written into that file.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is this one
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:  # the stream was closed when Python started
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the streams of tests and notebooks have no encoding
            stream.reconfigure(errors="backslashreplace")


def use_utf8_mode() -> None:
    """Start this process again in Python's UTF-8 mode if its locale is ASCII; does not return in that case.

    Python uses UTF-8 in the C locale by itself, unless PYTHONUTF8=0 and PYTHONCOERCECLOCALE=0 turn that off. Then the
    names of files that a YAML file or a run contains could not be opened, and arguments would not be text.
    """
    if sys.getfilesystemencoding() == "ascii" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise ValueError if an argument is not text: it is recorded with a run, and a store holds text only."""
    for argument in arguments:
        _check_text("argument", argument)


def check_current_folder() -> None:
    """Raise ValueError if the current folder, to which paths of runs are relative, was deleted or is not text."""
    try:
        _check_text("current folder", os.getcwd())
    except FileNotFoundError:
        raise ValueError(
            "the current folder was deleted; expected a folder that exists; change to another folder"
        ) from None


def _check_text(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        raise ValueError(
            f"the {what} {shown} is not valid {sys.getfilesystemencoding().upper()}; expected arguments and names of "
            "files in the encoding of the locale; rename it, or set LC_ALL=C.UTF-8 if it is UTF-8"
        ) from None


def write_utf8() -> None:
    """Write the standard output as UTF-8 from now on, because it is data that is read as UTF-8 again.

    Not on a terminal, which shows the encoding of the locale, and not if PYTHONIOENCODING names an encoding.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and not (sys.stdout.isatty() or os.environ.get("PYTHONIOENCODING")):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


def discard(stream: Any) -> None:
    """Write what a stream still holds, and all that follows, to nowhere, so that it cannot fail again at the end."""
    with contextlib.suppress(OSError, ValueError):  # a stream of a test has no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def discard_unwritable(stream: Any) -> None:
    """Write what a stream still holds, or discard it if that fails. Python would exit with code 120 at the end."""
    try:
        stream.flush()
    except (OSError, ValueError):
        discard(stream)


class LastingOutput(io.TextIOBase):
    """A standard output whose loss does not end the work of a process.

    If the output cannot be written (its reader has ended, its terminal is closed, the disk of a log is full), the rest
    of it is dropped, after `warning`, one line on standard error.
    """

    def __init__(self, stream: Any, warning: str = "") -> None:
        self.stream, self.warning = stream, warning

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.stream.encoding

    def fileno(self) -> int:
        return self.stream.fileno()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        discard(self.stream)
        if self.warning:
            print(f"standard output: {error.strerror or error}; {self.warning}", file=sys.stderr)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """For the length of the block, let this process work on if its messages cannot be written any more."""
    before = sys.stdout, sys.stderr
    sys.stdout = LastingOutput(sys.stdout, "the work continues without messages; Ctrl-C or a signal stops it")
    sys.stderr = LastingOutput(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
