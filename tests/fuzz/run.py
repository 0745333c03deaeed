"""Random damage to images and folders, half of the time each: python tests/fuzz/run.py --minutes 10.

Prints what was found and one line for each, and ends with 1 where anything was found. A new seed every time; name it to
go through the same again.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    arguments = ["--minutes", str(options.minutes / 2), "--seed", str(options.seed)]
    print(f"seed {options.seed}", flush=True)
    codes = []
    for name in ("images.py", "folders.py"):
        print(f"{name}: ", end="", flush=True)
        script = str(Path(__file__).with_name(name))
        done = subprocess.run([sys.executable, script, *arguments], check=False, stderr=subprocess.PIPE)
        if done.returncode:  # decoders complain on every damaged file: of no interest where all went well
            print(done.stderr[-2000:].decode(errors="replace"))
        codes.append(done.returncode)
    sys.exit(any(codes))


if __name__ == "__main__":
    main()
