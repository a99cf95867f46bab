"""The command `autodeco-edge`: which commands there are, and how an error ends.

Owns registration and exit codes. A command parses, calls and prints; the heavy imports
are inside the commands, so that `--help` costs nothing.
"""

from __future__ import annotations

import errno
import os
import sys

import typer

from ..errors import AutodecoError
from ..io.printing import close_stdout, one_line, open_streams, say
from . import bench, collect, config, convert, doctor, eval, fit, models, plot, rpc_worker, run, serve, train
from .refusals import is_parsers, refusal
from .settings import Command, Group

app = typer.Typer(
    name="autodeco-edge",
    help="Learned decoding on your own machine: a temperature and a top-p for every token.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(run.run)
app.command()(serve.serve)
app.command()(rpc_worker.rpc_worker)
app.command()(models.pull)
app.command("list")(models.list_models)
app.command()(models.rm)
app.command()(convert.convert)
app.command()(convert.merge)
app.command()(models.show)
app.command()(convert.verify)
app.command()(collect.collect)
app.command()(train.train)
app.command()(fit.fit)
app.command()(plot.plot)
app.command()(config.config)
app.command()(doctor.doctor)
app.add_typer(bench.app, cls=Group)
app.add_typer(eval.app, cls=Group)
for _typer in (app, bench.app, eval.app):
    for _command in _typer.registered_commands:
        _command.cls = Command


def _version(value: bool) -> None:
    if value:
        from .. import __version__

        print(__version__)
        raise typer.Exit()


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
) -> None:
    pass


def main() -> None:
    """Entry point: one line an error, the exit code of its class, no traceback."""
    open_streams()
    code = _guarded()
    failure = close_stdout()
    sys.exit(_complain(str(failure), failure.exit_code) if failure and not code else code)


def _guarded() -> int:
    try:
        return app(standalone_mode=False, prog_name=app.info.name) or 0
    except AutodecoError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head`, which has seen enough
        return 0
    except SystemExit as stop:  # click's answer to the same
        return 0 if isinstance(stop.__context__, BrokenPipeError) else stop.code
    except MemoryError:
        return _complain("out of memory; use a smaller model or a smaller -c", 71)
    except Exception as error:
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # a name without a command is a question
        print(error.ctx.get_help())
        return 0
    if is_parsers(error):
        return _complain(str(refusal(error)), 2)
    if type(error).__name__ == "Abort":
        return 130
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        return _complain(f"{error.filename or 'stdout'}: writing failed ({error.strerror})", 74)
    if os.environ.get("AUTODECO_DEBUG"):
        raise error
    return _complain(f"internal error: {type(error).__name__}: {error} (AUTODECO_DEBUG=1 shows where)", 70)


def _complain(message: str, code: int) -> int:
    say("autodeco-edge: error: " + one_line(message))
    return code
