"""Building exported models for Cortex-M, running them in QEMU, and measuring what they take."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
TOOLS = ("arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm")
PACKAGES = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
WARNINGS = ("-pedantic", "-Wall", "-Wextra", "-Werror", "-Wconversion")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class Machine(NamedTuple):
    """A processor and the board that QEMU puts it on."""

    name: str
    flags: tuple[str, ...]
    board: str
    flash: str
    ram: str


M4 = Machine("Cortex-M4", ("-mcpu=cortex-m4", "-mfloat-abi=soft"), "mps2-an386", "4M", "4M")
M4F = Machine("Cortex-M4F", ("-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"), "mps2-an386", "4M", "4M")
M0 = Machine("Cortex-M0+", ("-mcpu=cortex-m0plus", "-mfloat-abi=soft"), "microbit", "256K", "16K")


class Footprint(NamedTuple):
    flash: int
    state: int
    stack: int


def missing_tools() -> list[str]:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if not missing and not Path(_run(["arm-none-eabi-gcc", "-print-file-name=nano.specs"]).strip()).is_absolute():
        missing.append("newlib for arm-none-eabi-gcc")
    return missing


def write(files: Mapping[str, str], folder: Path) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)


def on_host(name: str, folder: Path, compiler: str = "gcc", flags: Sequence[str] = ("-O2",)) -> str:
    """What the self-test prints on this machine; CalledProcessError where it does not pass."""
    program = folder / f"{name}_{compiler}{len(flags)}"
    sources = [folder / f"{name}.c", folder / f"{name}_test.c"]
    _run([compiler, "-std=c99", *WARNINGS, "-ffp-contract=off", *flags, "-o", program, *sources])
    return _run([program])


def on_device(name: str, folder: Path, machine: Machine) -> str:
    """What the self-test prints on the emulated board."""
    image = folder / f"{name}_{machine.board}.elf"
    sources = [folder / f"{name}.c", folder / f"{name}_test.c", HERE / "start.c"]
    _link(image, sources, machine, ["--specs=rdimon.specs"])
    return _emulate(image, machine)


def footprint(name: str, folder: Path, machine: Machine) -> Footprint:
    """Flash of the model with all that it calls, bytes of its state, and of the stack while it works."""
    header = (folder / f"{name}.h").read_text()
    sizes = []
    for work in ("static void edge_work(void) {}\n", _work(name, header)):
        (folder / "edge_work.h").write_text(work)
        image = folder / f"{name}_size.elf"
        flags = [f"-I{folder}", "-Wno-unused-variable"]
        _link(image, [folder / f"{name}.c", HERE / "footprint.c"], machine, flags)
        text, data, bss = (int(n) for n in _run(["arm-none-eabi-size", image]).splitlines()[1].split()[:3])
        sizes.append((text + data, data + bss))
    stack = int(_emulate(image, machine))
    probe = folder / f"{name}_probe.c"
    probe.write_text(f'#include "{name}.h"\nchar probe[sizeof({name}_state)];\n')
    _run(["arm-none-eabi-gcc", "-mthumb", *machine.flags, "-c", "-o", probe.with_suffix(".o"), probe])
    table = _run(["arm-none-eabi-size", probe.with_suffix(".o")]).splitlines()[1].split()
    return Footprint(sizes[1][0] - sizes[0][0], int(table[2]), stack)


def _work(name: str, header: str) -> str:
    """A caller of everything: reset, rows, and a forecast where there is one."""
    forecast = re.search(rf"^int {name}_forecast\(.*?(double|int32_t) forecast(.*?)\);", header, re.M | re.S)
    answer = re.search(r"(double|int32_t) answer(\[\d+\])\);", header)
    found = forecast or answer
    assert found
    fixed, known = (f"}} {name}_{what};" in header for what in ("static", "known"))
    lines = [f'#include "{name}.h"', f"static {name}_state state;", f"static {name}_row row;"]
    lines += [f"static {found[1]} answer{found[2]};"]
    lines += [f"static {name}_static fixed;"] * fixed + [f"static {name}_known ahead[{name.upper()}_HORIZON];"] * known
    lines += ["__attribute__((noinline)) static void edge_work(void)", "{", "    int i;"]
    lines += [f"    {name}_reset(&state{', &fixed' if fixed else ''});", "    for (i = 0; i < 3; i++) {"]
    lines += ["        row.time = i;"] * (" time; /*" in header.split(f"}} {name}_row;")[0])
    lines += [f"        {name}_push(&state, &row{'' if forecast else ', answer'});", "    }"]
    lines += [f"    {name}_forecast(&state, {'ahead, ' if known else ''}answer);"] * bool(forecast)
    return "\n".join([*lines, "    (void)answer;", "}"]) + "\n"


def _link(image: Path, sources: Sequence[Path], machine: Machine, flags: Sequence[str]) -> None:
    memory = [f"-Wl,--defsym=edge_flash={machine.flash}", f"-Wl,--defsym=edge_ram={machine.ram}"]
    compiler = ["arm-none-eabi-gcc", "-mthumb", *machine.flags, "-std=gnu99", "-Os", "-ffp-contract=off"]
    strict = ["-Wall", "-Wextra", "-Werror", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"]
    bare = ["-nostartfiles", "--specs=nano.specs", *flags, "-T", HERE / "edge.ld", *memory]
    _run([*compiler, *strict, *bare, "-o", image, *sources])


def _emulate(image: Path, machine: Machine) -> str:
    semihosting = ["-semihosting-config", "enable=on,target=native"]
    screen = ["-nographic", "-monitor", "none", "-serial", "none"]
    return _run(["qemu-system-arm", "-M", machine.board, *screen, *semihosting, "-kernel", image])


def _run(command: Sequence[str | Path]) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise AssertionError(f"{command[0]}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr
