"""Every benchmark, one after another: `make bench`, forty minutes. Each replaces its section of `RESULTS.md`."""

import subprocess
import sys
from pathlib import Path

SCRIPTS = ("calls", "walk", "host", "cores", "kernels", "cost", "many", "bench_anysat", "presto")

if __name__ == "__main__":
    for script in SCRIPTS:
        subprocess.run([sys.executable, Path(__file__).with_name(f"{script}.py"), *sys.argv[1:]], check=True)
