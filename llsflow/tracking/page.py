"""The MLflow page for as long as its parent lives: `python -m llsflow.tracking.page PORT`."""

from __future__ import annotations

import signal
import sys

from llsflow.errors import LlsflowError
from llsflow.tracking.store import serve


def main(port: int) -> int:
    """Start the page, wait for SIGTERM or SIGINT, and end it: the server itself leaves its workers behind."""
    awaited = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    try:
        page = serve(port=port)
    except LlsflowError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    signal.sigwait(awaited)
    if not page.reused:
        page.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
