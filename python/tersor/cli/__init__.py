"""The command line ``tersor``. The one rule: whatever goes wrong ends in one message on stderr and an exit status that says
whose fault it was (0 done, 1 the content, 2 usage or a file, 130 and 143 stopped), never in a traceback."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import signal
import sys
from typing import Any, NoReturn

try:
    import click

    from tersor.cli._console import listener_gone, prepare, shown, silence
except ModuleNotFoundError as missing:
    print(f"tersor: the command line needs {missing.name}: pip install 'tersor[cli]'", file=sys.stderr)
    sys.exit(2)

import tersor
from tersor.checkpoint._format import Misuse


class Terminated(BaseException):
    """SIGTERM arrived."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command line and exits with its status."""

    def terminate(*_: Any) -> NoReturn:
        raise Terminated

    prepare()
    signal.signal(signal.SIGTERM, terminate)
    message, status = "", 0
    try:
        outcome = commands.main(arguments, "tersor", standalone_mode=False)
        status = outcome if isinstance(outcome, int) else 0
        sys.stdout.flush()
    except click.UsageError as error:
        help_for = error.ctx.command_path if error.ctx else "tersor"
        message, status = f"{error.format_message()} (see {help_for} --help)", 2
    except click.ClickException as error:
        message, status = error.format_message(), 2
    except (click.Abort, KeyboardInterrupt):
        message, status = "interrupted", 130
    except Terminated:
        message, status = "terminated", 143
    except SystemExit as error:
        if not listener_gone(error):
            raise
        silence()
    except OSError as error:
        if listener_gone(error):  # the reader of our output has gone: nothing is wrong, and nobody listens
            silence()
        else:
            where = f"{error.filename}: " if error.filename else ""
            message, status = where + (error.strerror or str(error)), 2
    except MemoryError as error:
        message, status = f"out of memory {error}".strip(), 2
    except Misuse as error:
        message, status = str(error), 2
    except ValueError as error:
        message, status = str(error), 1
    except Exception as error:
        message, status = f"internal error, please report it: {type(error).__name__}: {error}", 1
    if message:
        with contextlib.suppress(OSError):
            print("tersor:", shown(" ".join(message.split())), file=sys.stderr)
    sys.exit(status)


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(tersor.__version__, message="tersor %(version)s")
def commands() -> None:
    """Make neural representations small: inspect, prune and quantize checkpoints.

    \b
    tersor inspect model/
    tersor prune model/ -o pruned/ --sparsity 0.5
    tersor quantize model/ -o small/ --scheme int4-g128
    tersor repack small/ -o other/ --to gptq
    """


for _found in pkgutil.iter_modules(__path__):
    if not _found.name.startswith("_"):
        commands.add_command(getattr(importlib.import_module(f"{__name__}.{_found.name}"), _found.name))
