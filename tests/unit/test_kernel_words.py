"""Failures in the kernel's words: each text as a real kernel, kmod 30 or driver 535 printed it, and what it means."""

import os
import re

import pytest

from driverctr.diagnose import _paragraphs, recognise
from driverctr.errors import Code, DriverError
from driverctr.explain import EXPLANATIONS, Sign
from driverctr.facts import tasks
from driverctr.kmod import Kmod
from driverctr.paths import Paths
from tests.unit.conftest import FakeBin, make_tree

NO_SUCH_DEVICE = "modprobe: ERROR: could not insert 'nvidia': No such device"
INVALID = "modprobe: ERROR: could not insert 'nvidia': Invalid argument"
FORMAT = "modprobe: ERROR: could not insert 'nvidia': Exec format error"
K80 = r"""NVRM: The NVIDIA Tesla K80 GPU installed in this system is
NVRM:  supported through the NVIDIA 470.xx Legacy drivers. Please
NVRM:  visit http://www.nvidia.com/object/unix.html for more
NVRM:  information.  The 535.309.01 NVIDIA driver will ignore
NVRM:  this GPU.  Continuing probe...
NVRM: No NVIDIA GPU found."""
B200 = """nvidia-nvlink: Nvlink Core is being initialized, major device number 244
NVRM: The NVIDIA GPU 0001:01:00.0 (PCI ID: 10de:2901)
NVRM: installed in this system is not supported by the
NVRM: NVIDIA 535.309.01 driver release.
NVRM: Please see 'Appendix A - Supported NVIDIA GPU Products'
nvidia: probe of 0001:01:00.0 failed with error -1
NVRM: The NVIDIA probe routine failed for 1 device(s).
NVRM: None of the NVIDIA devices were initialized."""
V100_OPEN = """NVRM: The NVIDIA GPU 0001:01:00.0 (PCI ID: 10de:1db1)
NVRM: installed in this system is not supported by open
NVRM: nvidia.ko because it does not include the required GPU
NVRM: System Processor (GSP).
NVRM: The NVIDIA probe routine failed for 1 device(s)."""
SELF_HOSTED = """NVRM: The NVIDIA GPU 0009:01:00.0 (PCI ID: 10de:2342)
NVRM: installed in this system is self-hosted, and requires
NVRM: use of the NVIDIA open kernel modules."""
TAKEN = """NVRM: The NVIDIA probe routine was not called for 1 device(s).
NVRM: This can occur when a driver such as:
NVRM: nouveau, rivafb, nvidiafb or rivatv
NVRM: was loaded and obtained ownership of the NVIDIA device(s).
NVRM: No NVIDIA devices probed."""
REAL_UVM_ON_ANOTHER_NVIDIA = """nvidia_uvm: Unknown symbol nvUvmInterfaceQueryCaps (err -2)
nvidia_uvm: disagrees about version of symbol nvUvmInterfaceSessionCreate
nvidia_uvm: Unknown symbol nvUvmInterfaceSessionCreate (err -22)"""
MANY = "\n".join(f"nvidia: Unknown symbol drm_{number} (err -2)" for number in range(9))
MISMATCH = """NVRM: API mismatch: the client has the version 550.90.07, but
NVRM: this kernel module has the version 535.309.01.  Please
NVRM: make sure that this kernel module and all NVIDIA driver
NVRM: components have the same version."""
MAGIC = "nvidia: version magic '6.12.1 SMP preempt mod_unload ' should be '6.1.0-56-amd64 SMP preempt mod_unload '"
PEERMEM = "nvidia-peermem nv_mem_client_init:551 ERROR module compiled without IB peer memory symbols present"
SYMBOL_OR_PARAMETER = "Unknown symbol in module, or unknown parameter (see dmesg)"

FERMI = """NVRM: The Unknown NVIDIA Fermi Series GPU installed in this
NVRM:  system is not supported through the 535.309.01 NVIDIA
NVRM:  driver. You can try the NVIDIA 390.xx Legacy drivers.
NVRM:  Please visit http://www.nvidia.com/object/unix.html
NVRM:  for download information.  The 535.309.01 NVIDIA driver
NVRM:  will ignore this GPU.  Continuing probe..."""
REGION = """NVRM: request_mem_region failed for 16M @ 0xf6000000. This can
NVRM: occur when a driver such as rivatv is loaded and claims
NVRM: ownership of the device's registers."""
OFF_THE_BUS = """NVRM: The NVIDIA GPU 0000:0e:00.0
NVRM: (PCI ID: 10de:1b06) installed in this system has
NVRM: fallen off the bus and is not responding to commands."""

WORDS = [
    ("NVRM: No NVIDIA GPU found.", NO_SUCH_DEVICE, Code.NO_GPU, "no NVIDIA GPU"),
    ("", NO_SUCH_DEVICE, Code.NO_DEVICE, "no device"),
    (B200.splitlines()[-2], NO_SUCH_DEVICE, Code.NO_DEVICE, "1 GPU(s) did not start"),
    (K80, NO_SUCH_DEVICE, Code.GPU_LEGACY, "Tesla K80 is supported by the legacy driver branch 470.xx"),
    (FERMI, NO_SUCH_DEVICE, Code.GPU_LEGACY, "Fermi series may be supported by the legacy driver branch 390.xx"),
    (B200, NO_SUCH_DEVICE, Code.GPU_TOO_NEW, "0001:01:00.0 (10de:2901) is not supported by driver 535.309.01"),
    (V100_OPEN, NO_SUCH_DEVICE, Code.WRONG_MODULE_TYPE, "GPU 0001:01:00.0 (10de:1db1) has no GPU System Processor"),
    (SELF_HOSTED, NO_SUCH_DEVICE, Code.WRONG_MODULE_TYPE, "(10de:2342) needs the open modules"),
    (TAKEN, NO_SUCH_DEVICE, Code.GPU_TAKEN, "1 GPU(s) are bound to another driver"),
    ("NVRM: GPU 0000:3b:00.0 is already bound to nouveau.", NO_SUCH_DEVICE, Code.GPU_TAKEN, "bound to nouveau"),
    (REGION, NO_SUCH_DEVICE, Code.GPU_TAKEN, "memory 16M @ 0xf6000000"),
    ("NVRM: GPU 0001:01:00.0: RmInitAdapter failed! (0x62:0x25:2416)", "", Code.GPU_INIT_FAILED, "0x62:0x25:2416"),
    ("NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.", "", Code.GPU_LOST, "0000:3b:00.0 has fallen off"),
    (OFF_THE_BUS, NO_SUCH_DEVICE, Code.GPU_LOST, "0000:0e:00.0 has fallen off"),
    (MANY, "", Code.UNKNOWN_SYMBOL, "drm_2, which the kernel does not have (and 6 more)"),
    ("", f"could not insert 'nvidia_uvm': {SYMBOL_OR_PARAMETER}", Code.UNKNOWN_SYMBOL, "needs a symbol"),
    (PEERMEM, INVALID, Code.UNKNOWN_SYMBOL, "MOFED"),
    ("nvidia_peermem: disagrees about version of symbol ib_register_peer_memory_client", INVALID,
     Code.UNKNOWN_SYMBOL, "another MOFED (ib_register"),
    (REAL_UVM_ON_ANOTHER_NVIDIA, INVALID, Code.OTHER_VERSION, "nvUvmInterfaceSessionCreate differs"),
    (REAL_UVM_ON_ANOTHER_NVIDIA.splitlines()[0], INVALID, Code.OTHER_VERSION, "nvUvmInterfaceQueryCaps is not in it"),
    (MISMATCH, "", Code.OTHER_VERSION, "version 550.90.07, the loaded modules of 535.309.01"),
    ("", "Failed to initialize NVML: Driver/library version mismatch", Code.OTHER_VERSION, "different versions"),
    (MAGIC, FORMAT, Code.WRONG_KERNEL, "`6.12.1 SMP preempt mod_unload`, this one is `6.1.0-56-amd64 SMP"),
    ("nvidia: disagrees about version of symbol module_layout", FORMAT, Code.WRONG_KERNEL, "module_layout differs"),
    ("nvidia: no symbol version for module_layout", FORMAT, Code.WRONG_KERNEL, "no version of module_layout"),
    ("nvidia_uvm: no symbol version for nvUvmInterfaceSessionCreate", INVALID, Code.OTHER_VERSION,
     "nvUvmInterfaceSessionCreate differs"),
    ("nvidia_peermem: no symbol version for ib_register_peer_memory_client", INVALID, Code.UNKNOWN_SYMBOL,
     "another MOFED (ib_register"),
    ("", "could not insert 'nvidia': Key was rejected by service", Code.KEY_REJECTED, "signature"),
    ("", "could not insert 'nvidia': Required key not available", Code.KEY_REJECTED, "unsigned"),
    ("Loading of unsigned module is rejected", "Key was rejected by service", Code.KEY_REJECTED, "unsigned module"),
    ("Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7",
     "Operation not permitted", Code.KEY_REJECTED, "locked down: unsigned module loading"),
    ("nvidia: `abc' invalid for parameter `NVreg_EnableStreamMemOPs'", INVALID, Code.BAD_PARAMETER,
     "NVreg_EnableStreamMemOPs cannot be `abc`"),
    ("Invalid architecture in ELF header: 183", FORMAT, Code.WRONG_ARCHITECTURE, "ELF machine 183"),
    ("Invalid ELF section header overflow", FORMAT, Code.LOAD_FAILED, "cut short or damaged"),
    ("", FORMAT, Code.LOAD_FAILED, "does not accept its file"),
    ("", "modprobe: FATAL: Module nvidia not found in directory /lib/modules/6.1", Code.LOAD_FAILED, "no file"),
    ("", "could not insert 'nvidia': Cannot allocate memory", Code.NO_MEMORY, "out of memory"),
    ("vmap allocation for size 65000000 failed: use vmalloc=<size> to increase size", "Cannot allocate memory",
     Code.NO_MEMORY, "65000000 bytes"),
    ("", "could not insert 'nvidia': Operation not permitted", Code.NO_PRIVILEGE, "not permitted"),
    ("", "cp: error writing 'x': No space left on device", Code.NO_SPACE, "no space"),
    ("", "rmmod: ERROR: Module nvidia is in use by: nvidia_uvm", Code.IN_USE, "nvidia is held by nvidia_uvm"),
    ("", "rmmod: ERROR: could not remove 'nvidia': Resource temporarily unavailable", Code.IN_USE, "it is in use"),
    ("", "rmmod: ERROR: Module nvidia is in use", Code.IN_USE, "nvidia is in use"),
]  # fmt: skip


@pytest.mark.parametrize(("kernel", "tool", "code", "says"), WORDS)
def test_the_words_of_a_failure_mean_its_code_and_name_what_it_is_about(
    kernel: str, tool: str, code: Code, says: str
) -> None:
    meant = recognise(kernel.splitlines(), tool)
    assert meant is not None and meant.code is code
    assert says in meant.says and meant.remedy


def test_words_without_a_meaning_mean_nothing() -> None:
    assert recognise(["eth0: link up"], "modprobe: ERROR: could not insert 'nvidia': Input/output error") is None


SIGNS = [(code, sign) for code, row in EXPLANATIONS.items() for sign in row.signs]


@pytest.mark.parametrize(("code", "sign"), SIGNS, ids=[f"{code}-{sign.pattern[:40]}" for code, sign in SIGNS])
def test_every_sign_of_the_table_is_what_some_of_these_words_are_known_by(code: Code, sign: Sign) -> None:
    assert any(known_by is code and _says(sign, kernel, tool) for kernel, tool, known_by, _ in WORDS)


def _says(sign: Sign, kernel: str, tool: str) -> bool:
    """Whether what is told of these words is told by this sign."""
    meant = recognise(kernel.splitlines(), tool)
    lines = tool.splitlines() if sign.of_tool else _paragraphs(kernel.splitlines())
    told = [sign.says.format(**found.groupdict()) for line in lines for found in re.finditer(sign.pattern, line)]
    return meant is not None and any(text in meant.says for text in told)


@pytest.fixture
def kmod(fake_bin: FakeBin, paths: Paths) -> Kmod:
    make_tree(paths.root, {"dev/kmsg": "6,7,1000,-;nvidia: an older line\n"})
    return Kmod(fake_bin.environment, paths=paths)


def failing(kmod: Kmod, fake_bin: FakeBin, tool: str, kernel: list[str], words: str) -> None:
    """A tool that fails while the kernel says something."""
    lines = "".join(f"3,{8 + number},2000,-;{line}\n" for number, line in enumerate(kernel))
    said = kmod.paths.root / "said"
    said.write_text(lines)
    fake_bin.add(tool, f'while read -r line; do echo "$line"; done <{said} >>{kmod.paths.kernel_log}\n'
                       f'echo "{words}" >&2; exit 1')  # fmt: skip


def test_a_failed_load_tells_code_meaning_and_the_kernels_last_lines(kmod: Kmod, fake_bin: FakeBin) -> None:
    failing(kmod, fake_bin, "modprobe", ["eth0: link up", *K80.splitlines()], NO_SUCH_DEVICE)
    with pytest.raises(DriverError) as failed:
        kmod.load("nvidia", 5)
    message = failed.value.message
    assert failed.value.code is Code.GPU_LEGACY and failed.value.remedy == "Use an image of that branch."
    assert "legacy driver branch 470.xx" in message and NO_SUCH_DEVICE in message
    assert "| NVRM: No NVIDIA GPU found." in message
    assert "eth0" not in message and "older" not in message


def test_a_gpu_that_fell_off_the_bus_is_why_a_load_fails(kmod: Kmod, fake_bin: FakeBin) -> None:
    failing(kmod, fake_bin, "modprobe", OFF_THE_BUS.splitlines(), NO_SUCH_DEVICE)
    with pytest.raises(DriverError, match=r"0000:0e:00\.0 has fallen off the bus") as failed:
        kmod.load("nvidia", 5)
    assert failed.value.code is Code.GPU_LOST


OF_OTHERS = [
    "EXT4-fs warning (device sda1): No space left on device",
    "snd_hda_intel: Unknown symbol azx_probe (err -2)",
    "Lockdown: Xorg: raw io port access is restricted; see man kernel_lockdown.7",
    "usb 1-1: Operation not permitted",
    "GPU 0000:01:00.0 is already bound to amdgpu",
]


@pytest.mark.parametrize(
    ("ours", "words", "code"),
    [
        ([], "could not insert 'nvidia': Key was rejected by service", Code.KEY_REJECTED),
        (["Loading of unsigned module is rejected"], INVALID, Code.KEY_REJECTED),
        (
            ["Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7"],
            "Operation not permitted",
            Code.KEY_REJECTED,
        ),
        (["nvidia: probe of 0000:3b:00.0: No space left on device"], INVALID, Code.LOAD_FAILED),
        (["nvidia_modeset: Unknown symbol backlight_device_register (err -2)"], INVALID, Code.UNKNOWN_SYMBOL),
        (["Invalid architecture in ELF header: 183"], FORMAT, Code.WRONG_ARCHITECTURE),
        (["module: Invalid ELF section header overflow"], FORMAT, Code.LOAD_FAILED),
    ],
)
def test_what_others_have_in_the_kernel_log_is_no_reason_of_a_failed_load(
    kmod: Kmod, fake_bin: FakeBin, ours: list[str], words: str, code: Code
) -> None:
    failing(kmod, fake_bin, "modprobe", [*OF_OTHERS, *ours, *OF_OTHERS], words)
    with pytest.raises(DriverError) as failed:
        kmod.load("nvidia-drm", 5)
    assert failed.value.code is code
    assert all(line in failed.value.message for line in ours)
    assert not any(line in failed.value.message for line in OF_OTHERS)


def test_a_load_that_fails_for_an_unknown_reason_keeps_all_words(kmod: Kmod, fake_bin: FakeBin) -> None:
    failing(kmod, fake_bin, "modprobe", ["nvidia: something new"], "could not insert 'nvidia': Input/output error")
    with pytest.raises(DriverError, match=r"Input/output error; kernel: nvidia: something new") as failed:
        kmod.load("nvidia", 5)
    assert failed.value.code is Code.LOAD_FAILED


def test_a_kernel_log_that_cannot_be_read_is_said(kmod: Kmod, fake_bin: FakeBin) -> None:
    kmod.paths.kernel_log.unlink()
    fake_bin.add("modprobe", 'echo "could not insert: Input/output error" >&2; exit 1')
    with pytest.raises(DriverError, match=r"the kernel log .* cannot be read: No such file"):
        kmod.load("nvidia", 5)


def test_a_refused_unload_is_in_use_and_nothing_else_the_kernel_said(kmod: Kmod, fake_bin: FakeBin) -> None:
    failing(kmod, fake_bin, "rmmod", ["NVRM: No NVIDIA GPU found."], "rmmod: ERROR: Module nvidia is in use")
    with pytest.raises(DriverError, match="nvidia is in use") as failed:
        kmod.unload(["nvidia"], 5)
    assert failed.value.code is Code.IN_USE
    failing(kmod, fake_bin, "rmmod", [], "rmmod: ERROR: could not remove 'nvidia': Input/output error")
    with pytest.raises(DriverError, match="Input/output error") as failed:
        kmod.unload(["nvidia"], 5)
    assert failed.value.code is Code.UNLOAD_FAILED


def test_a_tool_that_sigkill_does_not_end_is_left_with_its_kernel_stack(
    kmod: Kmod, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_bin.add("modprobe", "exec /bin/sleep 30")
    killed: list[int] = []
    monkeypatch.setattr("driverctr.kmod.KILL_LIMIT", 0.1)
    monkeypatch.setattr(os, "killpg", lambda group, number: killed.append(group))

    def hang(paths: Paths, pid: int) -> tasks.Task:
        return tasks.Task(pid, "modprobe nvidia", "D", "x", ("nvidia_init", "do_one_initcall"))

    monkeypatch.setattr(tasks, "read", hang)
    try:
        with pytest.raises(DriverError, match=r"state D, in the kernel: nvidia_init < do_one_initcall") as failed:
            kmod.load("nvidia", 0.1)
        assert failed.value.code is Code.STUCK
    finally:
        monkeypatch.undo()
        for group in killed:
            os.killpg(group, 9)


STACK = """[<0>] stand_in_sleep+0x21/0x40 [nvidia]
[<0>] nvidia_exit+0x12/0xff0 [nvidia]
[<0>] __do_sys_delete_module+0x1a6/0x2f0
"""


def test_a_hanging_task_is_described_by_where_it_sleeps(paths: Paths) -> None:
    status = "Name:\trmmod\nState:\tD (disk sleep)\n"
    make_tree(
        paths.root,
        {
            "proc/55/status": status,
            "proc/55/comm": "rmmod\n",
            "proc/55/cmdline": "rmmod\0nvidia\0",
            "proc/55/stack": STACK,
            "proc/55/wchan": "stand_in_sleep",
            "proc/56/status": "Name:\tmodprobe\nState:\tS (sleeping)\n",
            "proc/56/comm": "modprobe\n",
            "proc/57/status": "Name:\tcat\nState:\tD (disk sleep)\n",
            "proc/57/comm": "cat\n",
        },
    )
    (found,) = tasks.hanging_module_tools(paths)
    assert str(found) == (
        "pid 55 (rmmod), state D, in the kernel: stand_in_sleep < nvidia_exit < __do_sys_delete_module"
    ), "reading its command line may not return"
    make_tree(paths.root, {"proc/55/status": status.replace("D (disk sleep)", "S (sleeping)")})
    assert "pid 55 (rmmod nvidia), state S" in str(tasks.read(paths, 55))
    assert tasks.read(paths, 99) is None
