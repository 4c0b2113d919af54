"""The MLflow page for as long as its parent lives: `python -m llsflow.tracking.page PORT`."""

from __future__ import annotations

import signal
import sys
import time

from llsflow.errors import LlsflowError
from llsflow.tracking.store import serve

LOOK_SECONDS = 1.0
"""Between two looks whether the server lives."""


def main(port: int) -> int:
    """Keep the page up until SIGTERM or SIGINT, and end it: the server itself leaves its workers behind.

    A page that somebody else started goes on. One that ends by itself is an exit code of 1: whoever keeps this process
    starts it again.
    """
    # handlers, not a blocked mask: the server would inherit that, and never hear that it is to end
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    page = None
    try:
        page = serve(port=port)
        while page.lives():
            time.sleep(LOOK_SECONDS)
        sys.stderr.write(f"the MLflow page at {page.url} ended\n")
    except LlsflowError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    finally:
        if page is not None and not page.reused:
            page.stop()
    return 1


def _end(*_: object) -> None:
    for again in (signal.SIGTERM, signal.SIGINT):
        signal.signal(again, signal.SIG_IGN)
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
