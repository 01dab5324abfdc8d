"""`make test-edge`: exported models on an emulated Cortex-M4 and Cortex-M0+, bit for bit as on this machine."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from c_cases import DETECTORS, FORECASTERS, SEQUENCES, SMALL, float_files, int8_files
from edge import arm

# The integers run on both processors without a floating-point unit; floats on all three, with one and without.
CASES = [
    ("plain", FORECASTERS["plain"], float_files, (arm.M4F, arm.M4, arm.M0)),
    ("every", FORECASTERS["every"], float_files, (arm.M4F, arm.M0)),
    ("warning", SEQUENCES["warning"], float_files, (arm.M4F, arm.M0)),
    ("detector", DETECTORS["odder"], float_files, (arm.M4F, arm.M0)),
    ("small_int8", SMALL, int8_files, (arm.M4, arm.M0)),
    ("every_int8", FORECASTERS["every"], int8_files, (arm.M4, arm.M0)),
    ("covariates_int8", FORECASTERS["covariates"], int8_files, (arm.M4, arm.M0)),
    ("calendar_int8", FORECASTERS["business"], int8_files, (arm.M4, arm.M0)),
    ("label_int8", SEQUENCES["attention"], int8_files, (arm.M4, arm.M0)),
    ("warning_int8", SEQUENCES["warning"], int8_files, (arm.M4, arm.M0)),
]
FLASH, RAM = 24_000, 2_000  # bytes that the small forecaster may take of a Cortex-M4


def main() -> int:
    missing = arm.missing_tools()
    if missing:
        print(f"test-edge: not run, there is no {', '.join(missing)}; apt-get install {arm.PACKAGES}.", file=sys.stderr)
        return int(os.environ.get("CAROUSEL_EDGE") == "required")
    compilers = [name for name in ("gcc", "clang") if shutil.which(name)]
    print(f"{'model':18}{'machine':12}{'flash':>8}{'state':>8}{'stack':>8}  forecasts or answers")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name, config, files, machines in CASES:
            arm.write(files(name, config), folder)
            wanted = arm.on_host(name, folder, flags=("-O1", "-g", *arm.SANITIZERS))
            for compiler in compilers:
                same(wanted, arm.on_host(name, folder, compiler), f"{name} with {compiler}")
            for machine in machines:
                same(wanted, arm.on_device(name, folder, machine), f"{name} on {machine.name}")
                took = arm.footprint(name, folder, machine)
                print(f"{name:18}{machine.name:12}{took.flash:8,}{took.state:8,}{took.stack:8,}  {wanted.split()[-1]}")
                if name.startswith("small") and (took.flash > FLASH or took.state + took.stack > RAM):
                    raise SystemExit(f"test-edge: {name} takes more than {FLASH:,} bytes of flash or {RAM:,} of RAM.")
    return 0


def same(wanted: str, found: str, what: str) -> None:
    if wanted.split()[-2:] != found.split()[-2:] or wanted.split()[-2] != "ok":
        raise SystemExit(f"test-edge: {what} differs from the host: {found.strip()!r}, not {wanted.strip()!r}.")


if __name__ == "__main__":
    sys.exit(main())
