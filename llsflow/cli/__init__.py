"""The command line: joins configuration, plan and flows. `main` is the console script."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from llsflow.cli.parser import parse
from llsflow.errors import ConfigError, LlsflowError, MistakesError
from llsflow.garbage import look_seldom

QUIET_LIBRARIES = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "true",
}
"""No library sends word of its use anywhere; set before any of them is imported."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 could not, 2 wrong configuration, 130 stopped."""
    for name, value in QUIET_LIBRARIES.items():
        os.environ.setdefault(name, value)
    look_seldom()
    options = parse(sys.argv[1:] if arguments is None else arguments)
    handler = _log_to_terminal(verbose=getattr(options, "verbose", False))
    try:
        return int(options.command(options) or 0)
    except LlsflowError as error:
        print(_told(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has seen enough
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - stays open to the end of the process
        return 0
    except Exception:
        print(f"llsflow itself failed; the whole story is in {_keep_traceback()}", file=sys.stderr)
        return 70  # EX_SOFTWARE of sysexits.h
    finally:
        logging.getLogger("llsflow").removeHandler(handler)


def _told(error: LlsflowError) -> str:
    if isinstance(error, ConfigError):
        count = len(error.mistakes)
        return f"{count} mistake{'s' if count > 1 else ''} in the configuration:\n{error}"
    if isinstance(error, MistakesError) and len(error.mistakes) > 1:
        return f"llsflow: cannot go on:\n{error}"
    return f"llsflow: {error}"


def _log_to_terminal(*, verbose: bool) -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("llsflow: %(message)s"))
    logger = logging.getLogger("llsflow")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    return handler


def _keep_traceback() -> Path:
    """Write the current traceback to the log and return the log's path."""
    import datetime
    import tempfile
    import traceback

    from llsflow.home import home

    text = f"\n{datetime.datetime.now().astimezone().isoformat()} {' '.join(sys.argv)}\n{traceback.format_exc()}"
    for folder in (home() / "logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "llsflow.log").open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError:
            continue
        return folder / "llsflow.log"
    return Path("(nowhere: no folder could be written)")
