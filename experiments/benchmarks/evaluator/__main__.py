"""All benchmarks of the evaluator, one after another.

    python experiments/benchmarks/evaluator [--minutes 60]

``repair`` and ``ranking`` go on where an earlier run ended; --minutes is what ``repair`` may take now.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", default="60")
    given = parser.parse_args(arguments)
    for script in ("speed", "latency", "promises", "ranking", "repair"):
        settings = ["--minutes", given.minutes] if script == "repair" else []
        subprocess.run([sys.executable, HERE / f"{script}.py", *settings], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
