"""Every way to every other, LoRA and full: `python -m tests.matrix [--only ddpx2]`; about an hour on two cores.

Exits with 1 when a pair fails, and says which.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.matrix.laboratory import Laboratory, assert_same_bits, compare
from tests.matrix.pairs import ALL, CASES


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    asked.add_argument("--only", metavar="WAY", help="only pairs that begin this way, like zero2x3")
    only = asked.parse_args().only
    failed, begun = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        laboratory = Laboratory(Path(scratch))
        for case in CASES:
            for before, after in ALL:
                if only not in (None, str(before)):
                    continue
                said = f"{case.name}: {before} to {after}"
                try:
                    whole, resumed = laboratory.whole(case, before), laboratory.resumed(case, before, after)
                    compare(case, whole, resumed, said)
                    if before == after:
                        assert_same_bits(whole, resumed, said)
                except AssertionError as error:
                    failed += 1
                    print(f"FAILED {said}\n{error}", flush=True)
                else:
                    print(f"ok     {said}", flush=True)
        laboratory.close()
    print(f"{failed} failed; {time.monotonic() - begun:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
