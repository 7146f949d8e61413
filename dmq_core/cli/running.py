"""Runs a click command so that every way it can end becomes the contract's exit status and at most two lines."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType

import click
from click.exceptions import NoArgsIsHelpError

from dmq_core.errors import DmqError
from dmq_core.text import visible

FAILED = 1
USAGE = 2
INTERRUPTED = 130
_SIGNALLED = 128
_ASK_FOR_THE_END = (signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """A signal asks for the end: SIGTERM, or SIGHUP of a terminal that goes away; raised in the main thread.

    So clean-up runs as for Ctrl-C.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = _SIGNALLED + number


def run(command: click.Command, name: str, arguments: Sequence[str]) -> int:
    """Runs `command` and gives the exit status; errors become one line of what and one of what to do on stderr."""
    _make_encodable()
    try:
        with _signals_raise():
            status = _invoke(command, name, list(arguments))
            sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return _tell(name, "interrupted", "", INTERRUPTED)
    except Terminated as signalled:
        return _tell(name, "terminated", "", signalled.status)
    except BrokenPipeError:
        return _reader_left()
    except DmqError as error:
        return _tell(name, error.what, error.hint, error.exit_status)
    except click.ClickException as error:
        return _usage(name, error)
    except Exception as error:
        return _bug(name, error)
    return status if isinstance(status, int) else 0


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """Meanwhile neither Ctrl-C nor a signal that asks for the end is heard: for what undoes things, within bounds."""
    # Not ignored by SIG_IGN, which a process that is started meanwhile would inherit.
    with _handled((signal.SIGINT, *_ASK_FOR_THE_END), lambda _number, _frame: None):
        yield


def _invoke(command: click.Command, name: str, arguments: list[str]) -> object:
    """What `click.Command.main` does, without its own ideas of what a broken pipe or Ctrl-C ends with."""
    if f"_{name.replace('-', '_').upper()}_COMPLETE" in os.environ:
        command.main(arguments, prog_name=name)  # a shell asks for completions; this answers and exits
    try:
        with command.make_context(name, arguments) as context:
            return command.invoke(context)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code


def _usage(name: str, error: click.ClickException) -> int:
    if isinstance(error, NoArgsIsHelpError):
        error.show()
        return USAGE
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"See '{context.command_path if context else name} --help'."
    return _tell(name, error.format_message(), hint, USAGE if isinstance(error, click.UsageError) else FAILED)


def _bug(name: str, error: Exception) -> int:
    if os.environ.get("DMQ_DEBUG"):
        traceback.print_exc()
    what = f"unexpected {type(error).__name__}: {error}"
    return _tell(name, what, "This is a fault of dmq; DMQ_DEBUG=1 shows where it happened.", FAILED)


def _tell(name: str, what: str, hint: str, status: int) -> int:
    with contextlib.suppress(OSError):
        print(f"{name}: {_one_line(what)}", file=sys.stderr)
        if hint:
            print(_one_line(hint), file=sys.stderr)
        sys.stderr.flush()
    return status


def _one_line(text: str) -> str:
    return visible(" ".join(text.split()))


def _reader_left() -> int:
    """The reader of a pipe has seen enough: no error of ours, and nothing more to flush when Python exits."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, io.UnsupportedOperation):
        os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
    return 0


def _make_encodable() -> None:
    """A terminal of a poor encoding shows escapes instead of stopping us."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise Terminated(number)


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    # What nohup has us ignore stays ignored.
    numbers = [number for number in _ASK_FOR_THE_END if signal.getsignal(number) is not signal.SIG_IGN]
    with _handled(numbers, _terminate):
        yield


@contextlib.contextmanager
def _handled(numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # whoever embeds us has its own way with signals
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)
