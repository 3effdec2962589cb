"""A failed build in one line: the first real error with file and line, or what ran out."""

from pathlib import Path

import pytest

from driverctr.build import BuildRequest, FirstError, failure
from driverctr.errors import Code
from driverctr.facts.compiler import Compiler
from driverctr.headers import Headers, Origin
from driverctr.userspace.image import ModuleType, Source
from driverctr.versions import DriverVersion

SCRATCH = Path("/var/tmp/b")
TREE = SCRATCH / "source"
REQUEST = BuildRequest(
    source=Source(ModuleType.PROPRIETARY, DriverVersion("535.309.01"), Path("/usr/src/nvidia"), ""),
    headers=Headers("6.1.0", Path("/h"), Path("/h"), Origin.HOST, "/h", "", (6, 1, 0), ""),
    compiler=Compiler("gcc-12", 12),
    jobs=3,
    scratch=SCRATCH,
    log_path=SCRATCH / "build.log",
)
CC = "  CC [M]  /var/tmp/b/source/nvidia/nv-pci.o"
FOUR_ARGUMENTS = f"""{CC}
{TREE}/nvidia/nv-pci.c: In function 'nv_resize_pcie_bars':
{TREE}/nvidia/nv-pci.c:223:9: error: too few arguments to function 'pci_resize_resource'
  223 |     r = pci_resize_resource(pci_dev, NV_GPU_BAR1, requested_size);
/usr/src/linux-headers/include/linux/pci.h:1426:18: note: declared here
{TREE}/nvidia/nv.c:9:9: error: a later one
make[3]: *** [scripts/Makefile.build:250: {TREE}/nvidia/nv-pci.o] Error 1"""
HEADER = (
    f"{TREE}/common/inc/nv-linux.h:31:10: fatal error: linux/gone.h: No such file or directory\ncompilation terminated."
)
CRASH = f"""{TREE}/nvidia/nv.c:77:1: internal compiler error: Segmentation fault
Please submit a full bug report"""
CRASH_WITHOUT_LINE = "gcc-12: internal compiler error: Segmentation fault signal terminated program cc1"
MODPOST = f"""ERROR: modpost: "drm_gem_object_lookup" [{TREE}/nvidia-drm.ko] undefined!
make[2]: *** [scripts/Makefile.modpost:126: {TREE}/Module.symvers] Error 1"""
GPL = "ERROR: modpost: GPL-incompatible module nvidia.ko uses GPL-only symbol 'rcu_read_unlock_strict'"
LD = "ld: cannot find nv-kernel.o: No such file or directory"
PREEMPT_RT = """The kernel you are installing for is a PREEMPT_RT kernel!

*** Failed PREEMPT_RT sanity check. Bailing out! ***"""
CC_CHECK = "\n*** Failed CC sanity check. Bailing out! ***\n"
KILLED = f"""gcc-12: fatal error: Killed signal terminated program cc1
compilation terminated.
make[3]: *** [scripts/Makefile.build:250: {TREE}/nvidia/nv.o] Error 1"""
LINK_KILLED = f"make[3]: *** [scripts/Makefile.build:300: {TREE}/nvidia.o] Error 137"
SHELL_KILLED = "/bin/sh: line 1: 4711 Killed                  ld -r -o nvidia.o nv.o"
FULL = f"""{TREE}/nvidia/nv.c:9:1: fatal error: error writing to /tmp/ccA1.s: No space left on device
compilation terminated."""
LINK_FULL = "ld: final link failed: No space left on device"
ASSEMBLER_FULL = "/tmp/cc1.s: Fatal error: can't write 12 bytes to section .text of nv.o: 'No space left on device'"


@pytest.mark.parametrize(
    ("output", "code", "says"),
    [
        (
            FOUR_ARGUMENTS,
            Code.BUILD_FAILED,
            ": nvidia/nv-pci.c:223: too few arguments to function 'pci_resize_resource';",
        ),
        (HEADER, Code.BUILD_FAILED, "common/inc/nv-linux.h:31: fatal error: linux/gone.h: No such file or directory"),
        (CRASH, Code.BUILD_FAILED, "nvidia/nv.c:77: internal compiler error: Segmentation fault"),
        (CRASH_WITHOUT_LINE, Code.BUILD_FAILED, CRASH_WITHOUT_LINE),
        (MODPOST, Code.BUILD_FAILED, '"drm_gem_object_lookup"'),
        (GPL, Code.BUILD_FAILED, "GPL-only symbol 'rcu_read_unlock_strict'"),
        (LD, Code.BUILD_FAILED, LD),
        (PREEMPT_RT, Code.BUILD_FAILED, "The kernel you are installing for is a PREEMPT_RT kernel;"),
        (CC_CHECK, Code.BUILD_FAILED, "Failed CC sanity check"),
        ("make: *** [Makefile:82: modules] Error 2", Code.BUILD_FAILED, "make ended with status 2"),
        (KILLED, Code.NO_MEMORY, "out of memory with 3 jobs"),
        (LINK_KILLED, Code.NO_MEMORY, "out of memory"),
        (SHELL_KILLED, Code.NO_MEMORY, "out of memory"),
        (FULL, Code.NO_SPACE, "no space left on device"),
        (LINK_FULL, Code.NO_SPACE, "no space left on device"),
        (ASSEMBLER_FULL, Code.NO_SPACE, "no space left on device"),
    ],
)
def test_makes_output_is_reduced_to_its_reason(output: str, code: Code, says: str) -> None:
    first = FirstError(TREE)
    for line in output.splitlines():
        first.see(line)
    error = failure(REQUEST, first, 2)
    assert error.code is code and error.remedy
    assert says in error.message and "/var/tmp/b/build.log" in error.message
