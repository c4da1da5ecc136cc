"""How a command ends: errors as one line on standard error, and its exit code."""

import sys
import traceback

import click

from regbench import shadowed_modules, startup
from regbench.errors import TrackingError, UserError, one_line, without_password

LONGEST = 300  # characters of a library's own message


def run(command: click.Command, args: list[str] | None = None) -> None:
    """Run a command and exit: 0, or its own code; 2 for a user's mistake, 1 for a failure, 130 for an interrupt."""
    try:
        startup.settle()
        code = command.main(args=args, standalone_mode=False)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        code = _fail(f"{error.format_message()} For all options: --help", 2)
    except UserError as error:
        code = _fail(str(error), 2)
    except TrackingError as error:
        code = _fail(f"the tracking store failed: {error}", 1)
    except (KeyboardInterrupt, click.Abort):
        code = _fail("interrupted; what was finished is kept: the same command, without rerun, continues", 130)
    except Exception as error:
        if isinstance(error, OSError) and startup.output_failed(error):
            what = f"standard output cannot be written ({error.strerror})"
            code = _fail(f"{what}; what was finished is kept: the same command, without rerun, continues", 1)
        elif file := shadowed_modules.culprit(error):
            code = _fail(shadowed_modules.message(file, error), 2)
        elif library := _not_imported(error):
            why = f"{type(error).__name__}: {one_line(error)[:LONGEST]}"
            way_out = "repair the environment variable or settings file of its that this is about, or install it anew"
            code = _fail(f"the library {library} cannot be imported ({why}): {way_out}", 2)
        else:
            raise
    sys.exit(code or 0)


def _not_imported(error: Exception) -> str:
    """Return the library of other people's that failed while it was imported; "" if it is another error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [
        frame.f_globals.get("__name__", "").split(".")[0] in ("regbench", "benchmarks", "__main__") for frame in frames
    ]
    called = frames[len(ours) - ours[::-1].index(True) :] if any(ours) else []
    if called and called[0].f_code.co_name == "<module>":
        return called[0].f_globals["__name__"].split(".")[0]
    return (error.name or "") if isinstance(error, ImportError) and not called else ""


def _fail(message: str, code: int) -> int:
    click.echo(f"error: {without_password(' '.join(message.split()))}", err=True)
    return code
