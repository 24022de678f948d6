"""The command `bench`: which function executes a command, and what is said when it fails.

Slow imports stand inside the functions of the commands, so that --help needs none of them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence

from bench.cli import project_commands, result_commands, training_commands
from bench.cli.arguments import PROGRAM, build_parser
from bench.system import streams
from bench.system.home import provide_home
from bench.system.visible_text import visible_line

TRAINING_COMMANDS = ("run", "suite", "scale", "sweep")
"""Commands whose output is messages about work that lasts; the work goes on if nobody reads them."""

ADVICE = {
    errno.ENOSPC: "Free space on the disk, and run the same command again to resume.",
    errno.EDQUOT: "Free space in your quota, and run the same command again to resume.",
    errno.EACCES: "Choose a file or folder that you may use (folders of results: --tracking.folder and --out).",
    errno.EROFS: "Choose a folder that can be written (folders of results: --tracking.folder and --out).",
    errno.ENOENT: "Check the path.",
    errno.ENOTDIR: "A file is where a folder is expected: choose another folder.",
    errno.EEXIST: "A file is where a folder is expected: choose another folder.",
    errno.EISDIR: "A folder is where a file is expected: check the path.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n), and run the same command again to resume.",
}
ADVICE[errno.EPERM] = ADVICE[errno.EACCES]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Exit codes: 0 done, 1 a job failed, 2 bad input, 3 the time was up, 130 and 143 interrupted."""
    if arguments is None:
        streams.use_utf8_mode()
        arguments = sys.argv[1:]
    streams.prepare()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        code = _run_command(arguments)
        sys.stdout.flush()  # here, because a failure at the end of the process has no message
        return code
    except UnicodeError as error:
        return _print_error(_describe_unicode_error(error))
    except ValueError as error:
        return _print_error(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of the output has ended, as in `bench models | head`
        streams.discard(sys.stdout)
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _print_error(f"{where}{error.strerror or error}. {_advice(error)}")
    except Exception as error:
        from bench.tracking.store import StoreFailure  # here, because it is slow

        if isinstance(error, StoreFailure):
            return _print_error(f"the tracking store failed: {str(error)[:240]}. Run the same command again to resume.")
        raise
    finally:
        for stream in (sys.stdout, sys.stderr):
            streams.discard_unwritable(stream)  # else Python fails when it ends, with exit code 120


def _run_command(arguments: Sequence[str]) -> int:
    if sys.flags.optimize > 1:  # Altair fails then, which is after all the work of a suite
        raise ValueError(
            "Python runs without docstrings, which libraries need; unset PYTHONOPTIMIZE, or use -O, not -OO"
        )
    streams.check_arguments(arguments)
    args, rest = build_parser().parse_known_args(arguments)
    if args.command == "translate":  # argparse leaves sentences that follow an option in `rest`
        args.sentences += [part for part in rest if not part.startswith("-")]
        rest = [part for part in rest if part.startswith("-")]
    if rest and args.command not in (*TRAINING_COMMANDS, "plan", "data", "speed"):
        raise ValueError(f"unknown arguments: {' '.join(rest)}; see {PROGRAM} {args.command} --help")
    streams.check_current_folder()
    if line := provide_home():
        _print_line(line)
    if args.command in TRAINING_COMMANDS:
        with streams.lasting_output():
            try:
                return COMMANDS[args.command](args, rest)
            except BrokenPipeError as error:  # of a connection, not of the output: the work is not done
                raise ConnectionError(error.errno, f"a connection has ended ({error.strerror})") from error
    return COMMANDS[args.command](args, rest)


def _advice(error: OSError) -> str:
    if error.errno == errno.ENOENT and not error.filename:  # Python has found no folder for temporary files
        return "Set TMPDIR to a folder that you may write."
    return ADVICE.get(error.errno or 0, "Fix the problem (disk full?) and run the same command again to resume.")


def _describe_unicode_error(error: UnicodeError) -> str:
    """The message for text that cannot be written as bytes, or bytes that are not text; no place is known here."""
    if isinstance(error, UnicodeEncodeError):
        text = error.object[max(0, error.start - 20) : error.end + 20].encode("ascii", "backslashreplace").decode()
        return (
            f"{text}: this text cannot be written as {error.encoding} ({error.reason}); expected valid Unicode text, "
            "and names of files in the encoding of the locale; correct the text or the name, or set LC_ALL=C.UTF-8"
        )
    return f"text is not UTF-8: {error}; expected files and names in UTF-8; convert them with iconv"


def _print_error(reason: str) -> int:
    """Prints an error as one line; returns the exit code."""
    _print_line(visible_line(" ".join(reason.split())))
    return 2


def _print_line(line: str) -> None:
    """Prints a line on standard error; a standard error that cannot be written changes nothing."""
    with contextlib.suppress(OSError):
        print(f"{PROGRAM}: {line}", file=sys.stderr, flush=True)


COMMANDS = {
    "run": training_commands.run_command,
    "suite": training_commands.suite_command,
    "scale": training_commands.scale_command,
    "sweep": training_commands.sweep_command,
    "plan": training_commands.plan_command,
    "tuned": training_commands.tuned_command,
    "report": result_commands.report_command,
    "store": result_commands.store_command,
    "translate": result_commands.translate_command,
    "probe": result_commands.probe_command,
    "attention": result_commands.attention_command,
    "promote": result_commands.promote_command,
    "data": project_commands.data_command,
    "models": project_commands.models_command,
    "latency": result_commands.latency_command,
    "speed": project_commands.speed_command,
    "verify": project_commands.verify_command,
    "ui": result_commands.ui_command,
}


if __name__ == "__main__":
    sys.exit(main())
