"""Scoring and accuracy over 100,000 rows of basic::equality, in rows per second.

python tests/bench/scoring.py [--rows 100000]
"""

from __future__ import annotations

import argparse
import json
import time

from llsflow.scorers import score_rows


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    rows = [{"expected_answer": str(i % 7), "generated_answer": str(i % 5)} for i in range(options.rows)]
    began = time.perf_counter()
    score_rows(rows, "basic::equality")
    seconds = time.perf_counter() - began
    print(json.dumps({"rate": options.rows / seconds, "seconds": round(seconds, 3)}))


if __name__ == "__main__":
    main()
