"""Standard streams in every locale, closed, full, or without a reader; arguments that are not text."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.system.streams import check_arguments

ROOT = Path(__file__).parents[2]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""An environment whose locale is ASCII, and in which Python's own remedies for it are turned off."""

BENCH = "from bench.cli.main import main; import sys; sys.exit(main())"

PRINT = """
import sys
from bench.cli import main

def models_command(args: object, flags: object) -> int:
    from bench.system import terminal

    terminal.say("a message")
    return 0

main.COMMANDS["models"] = models_command
sys.exit(main.main(["models"]))
"""
"""A command that only prints a line; the commands themselves need seconds to import their libraries."""


def run(program: str, *arguments: str | bytes, shell: str = '"$@"', **environment: str) -> tuple[int, str, str]:
    """(exit code, output, errors) of a Python program. `shell` starts it, where "$@" is the program."""
    command = ["sh", "-c", shell, "sh", sys.executable, "-c", program, *arguments]
    names = [name for name in os.environ if not name.startswith(("PYTHON", "LC_", "LANG"))]
    inherited = {name: os.environ[name] for name in names} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, env=inherited | environment, check=False)
    return done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [("ascii", r"gr\xfc\xdft \u4f60\U0001f600"), ("latin-1", r"grüßt \u4f60\U0001f600")],
)
def test_a_character_outside_the_encoding_is_printed_as_an_escape(encoding: str, printed: str) -> None:
    program = "from bench.system import streams; streams.prepare(); import sys\n"
    program += "for stream in (sys.stdout, sys.stderr): print('grüßt 你😀', file=stream)"
    assert run(program, PYTHONIOENCODING=encoding) == (0, f"{printed}\n", f"{printed}\n")


def test_a_name_that_is_not_utf8_is_printed_as_an_escape() -> None:
    program = "from bench.system import streams; streams.prepare(); import sys; print(sys.argv[1])"
    assert run(program, b"caf\xe9", LC_ALL="C.UTF-8") == (0, "caf\\udce9\n", "")


def test_in_an_ascii_locale_arguments_and_names_of_files_are_utf8(tmp_path: Path) -> None:
    (tmp_path / "grüßt").write_text("the content")
    program = "from bench.system import streams; streams.use_utf8_mode(); streams.prepare(); import sys, pathlib\n"
    program += "print(sys.argv[1] == 'gr\\xfc\\xdft', (pathlib.Path(sys.argv[2]) / 'gr\\xfc\\xdft').read_text())"
    assert run(program, "grüßt", str(tmp_path), **ASCII) == (0, "True the content\n", "")
    code, _, errors = run(BENCH, "report", "grüßt", **ASCII)
    assert (code, errors.encode("latin-1").decode()) == (
        2,
        "bench: unknown arguments: grüßt; see bench report --help\n",
    )


def test_an_argument_that_is_not_text_is_refused() -> None:
    check_arguments(["grüßt", "你😀", ""])
    code, output, errors = run(BENCH, "translate", "RUN", b"caf\xe9 \xfc", LC_ALL="C.UTF-8")
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert errors.startswith(r"bench: the argument caf\xe9 \xfc is not valid UTF-8; expected")


def test_a_current_folder_that_is_gone_or_is_not_text_is_refused(tmp_path: Path) -> None:
    gone = f'mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; "$@"'
    code, _, errors = run(PRINT, shell=gone)
    assert (code, errors) == (
        2,
        "bench: the current folder was deleted; expected a folder that exists; change to another folder\n",
    )
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    code, _, errors = run(PRINT, shell=f'cd {tmp_path}/caf*; "$@"', LC_ALL="C.UTF-8")
    assert (code, errors.count("\n")) == (2, 1)
    assert rf"bench: the current folder {tmp_path}/caf\xe9 is not valid UTF-8" in errors


def test_data_on_standard_output_is_utf8_in_every_locale() -> None:
    program = "from bench.system import streams; streams.prepare(); streams.write_utf8()\n"
    program += f"print({'grüßt 你'!a})"
    utf8 = "grüßt 你\n".encode().decode("latin-1")
    assert run(program, **ASCII) == (0, utf8, "")
    assert run(program, PYTHONIOENCODING="latin-1") == (0, "grüßt \\u4f60\n", "")


def test_closed_streams_do_not_give_their_numbers_to_files(tmp_path: Path) -> None:
    """Otherwise the file is opened as stream 1, and what a C library prints is written into it."""
    program = "from bench.system import streams; streams.prepare(); import os, sys\n"
    program += "file = open(sys.argv[1], 'w'); os.system('echo printed by a library'); print('printed')\n"
    program += "file.write('content'); print('error', file=sys.stderr); sys.exit(len(sys.stdin.read()))"
    assert run(program, str(tmp_path / "file"), shell='"$@" <&- >&- 2>&-') == (0, "", "")
    assert (tmp_path / "file").read_text() == "content"


def test_python_without_docstrings_is_refused_before_the_work() -> None:
    """Altair, which draws the report after all the work of a suite, reads its own docstrings."""
    code, _, errors = run(PRINT, PYTHONOPTIMIZE="2")
    assert code == 2
    assert errors.startswith("bench: Python runs without docstrings, which libraries need; unset PYTHONOPTIMIZE")
    assert run(PRINT, PYTHONOPTIMIZE="1") == (0, "a message\n", "")


needs_a_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a device of Linux")


@needs_a_full_device
def test_a_full_output_is_an_error_in_one_line() -> None:
    code, _, errors = run(PRINT, shell='"$@" > /dev/full')
    assert (code, errors) == (
        2,
        "bench: No space left on device. Free space on the disk, and run the same command again to resume.\n",
    )
    assert run(PRINT, shell='"$@" > /dev/full 2>&1')[0] == 2


def test_a_reader_that_ends_early_is_no_error() -> None:
    for program, arguments in ((BENCH, ["--help"]), (PRINT, [])):
        code, output, errors = run(program, *arguments, shell='{ sleep 0.1; "$@"; echo $? >&2; } | true')
        assert (code, output, errors) == (0, "", "0\n")


@pytest.mark.parametrize(
    ("shell", "reason"),
    [
        pytest.param('"$@" > /dev/full', "No space left on device", marks=needs_a_full_device),
        ('{ sleep 0.1; "$@"; } | true', "Broken pipe"),
    ],
)
def test_work_outlasts_its_output(shell: str, reason: str, tmp_path: Path) -> None:
    program = """
import sys
from bench.system import streams
streams.prepare()
with streams.lasting_output():
    from bench.system import terminal
    for number in range(3):
        terminal.say(f"message {number}")
        print("a library's message", flush=True)
    open(sys.argv[1], "w").write("the work is done")
"""
    code, _, errors = run(program, str(tmp_path / "file"), shell=shell)
    warning = f"standard output: {reason}; the work continues without messages; Ctrl-C or a signal stops it\n"
    assert (code, errors) == (0, warning)
    assert (tmp_path / "file").read_text() == "the work is done"
    assert run(program, str(tmp_path / "file"), shell=f"{{ {shell}; }} 2>&1")[0] == 0


@pytest.mark.parametrize(("columns", "term"), [("20", "xterm"), ("20", "dumb"), ("", ""), ("0", "unknown")])
def test_progress_is_printed_on_every_terminal(columns: str, term: str, tmp_path: Path) -> None:
    program = """
import os, pty, sys
from bench.system import streams
def work() -> None:
    streams.prepare()
    with streams.lasting_output():
        from bench.system import terminal
        from bench.system.progress import Status
        status = Status(0.5, 100, 1000, 10000, 3.0, 4.2, 12.5)
        line = terminal.ProgressLine("transformer-base grüßt")
        line(status)
        line.close()
        with terminal.ProgressBoard(2) as board:
            board.job_started(1, "transformer-base grüßt 你")
            board.job_progress(1, status)
            board.job_ended(1, "done, 12.5 BLEU")
        terminal.table([("measure", "left"), ("value", "right")], [["latency 你", "3"]])
pid, stream = pty.fork()
if not pid:
    work()
    os._exit(7)
printed = b""
try:
    while part := os.read(stream, 1000):
        printed += part
except OSError:
    pass  # the other end is closed
sys.stdout.buffer.write(printed)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    code, output, errors = run(program, COLUMNS=columns, TERM=term, LC_ALL="C.UTF-8")
    assert (code, errors) == (7, ""), output
    assert "latency 你" in output.encode("latin-1").decode()


FILES = sorted(path for folder in ("models", "bench", "reports") for path in (ROOT / folder).rglob("*.py"))


def decodes(call: ast.Call) -> bool:
    """Whether a call opens a text file or reads the text of a process."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    if isinstance(call.func, ast.Name) and name == "open":
        modes = [part.value for part in ast.walk(ast.Tuple(call.args[1:])) if isinstance(part, ast.Constant)]
        return not any("b" in str(mode) for mode in modes)
    if name in ("run", "Popen", "check_output"):
        return any(keyword.arg == "text" for keyword in call.keywords)
    return name in ("read_text", "write_text", "fdopen")


def test_every_text_file_is_opened_with_its_encoding() -> None:
    """Without `encoding` a file has the encoding of the locale, and another machine cannot read it."""
    found = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and decodes(node) and "encoding" not in {word.arg for word in node.keywords}:
                found.append(f"{path}:{node.lineno}")
    assert found == []
