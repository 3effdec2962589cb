# What init refuses before it touches anything, what it leaves alone, and how it waits for a GPU. The last scenarios
# take from the kernel, until its end, what the others need: their order matters.
. /mnt/guest/scenario.sh
set_up "$1"
gpu=/sys/bus/pci/devices/0001:01:00.0
phase() { grep -q "\"phase\": \"$1\"" /run/nvidia/driverctr/status.json; }
# Clock ticks a process has used, and how often it woke up.
process_of() { container "$runtime" inspect --format '{{.State.Pid}}' "$1"; }
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
wakes() { awk '/^voluntary/ { print $2 }' "/proc/$1/status"; }
untouched() {
    check "no module is loaded, nothing is mounted" is "$(grep -c '^nvidia' /proc/modules; driver_mounts)" 0
    check "no marker" absent $validations/.driver-ctr-ready
    check "no node" absent /dev/nvidiactl
}

if scenario "GPUs the release does not drive, or with the open modules only; an NVSwitch, and no fabric manager"; then
    # As lists of later releases have them, GH200 among them; none of this one's is.
    python3 - /images/driver/usr/share/nvidia/supported-gpus.json /tmp/supported-gpus.json <<'PYTHON'
import json, sys
known = json.load(open(sys.argv[1]))
for chip in known["chips"]:
    chip["features"].append("kernelopen" if chip["devid"].lower() == "0x20b0" else "gsp_proprietary_supported")
json.dump(known, open(sys.argv[2], "w"))
PYTHON
    printf '. /usr/lib/vm-host/lib.sh\nunplug_gpu\nplug_gpu "$1"\n' >/tmp/swap
    tries gpus -v /usr/lib/vm-host:/usr/lib/vm-host:ro -v /tmp/swap:/swap:ro -v /tmp/supported-gpus.json:/list:ro <<'END'
18|Tesla K80 is a legacy GPU: driver branch 470.xx drives it|bash /swap k80; nvidia-driver init
19|0001:01:00.0 (10de:2901) is newer than driver 535.309.01|bash /swap b200; nvidia-driver init
26|does not work with the open modules && KERNEL_MODULE_TYPE=proprietary|bash /swap v100; KERNEL_MODULE_TYPE=open nvidia-driver init
29|NVSwitch at 0001:01:00.0|bash /swap nvswitch; NO_GPU=wait nvidia-driver init
26|does not work with the proprietary modules of 535.309.01 && Set KERNEL_MODULE_TYPE=open|bash /swap a100; cp /list /usr/share/nvidia/supported-gpus.json; KERNEL_MODULE_TYPE=proprietary nvidia-driver init
0|driver 535.309.01 (open modules)|driverctr plan
END
    untouched
fi

if scenario "a GPU that belongs to another driver"; then
    modprobe pci-stub
    # vfio-pci itself binds only behind an IOMMU, which there is none of here: it is reserved for it all the same.
    # nouveau itself finds no firmware in the emulated GPU and lets it go: it has it reserved.
    tries taken -e gpu=$gpu <<'END'
27|is taken by vfio-pci|echo vfio-pci >$gpu/driver_override; nvidia-driver init
27|is taken by pci-stub|echo pci-stub >$gpu/driver_override; echo 0001:01:00.0 >/sys/bus/pci/drivers_probe; nvidia-driver init; s=$?; [[ $(readlink $gpu/driver) == */pci-stub ]] || s=1; exit $s
27|is taken by nouveau && modprobe.blacklist=nouveau|echo nouveau >$gpu/driver_override; echo 0001:01:00.0 >$gpu/driver/unbind; nvidia-driver init
END
    untouched
    echo >$gpu/driver_override
fi

if scenario "no GPU: fail, or wait for one"; then
    unplug_gpu
    start none -- nvidia-driver init
    refused none 17 "no NVIDIA GPU on the PCI bus" "NO_GPU=wait"
    untouched
    start waiting -e NO_GPU=wait -- nvidia-driver init
    check "it waits" wait_for 120 phase waiting-for-gpu
    pid=$(process_of waiting)
    sleep 1
    wakes=$(wakes "$pid")
    sleep 3
    check "without a wake-up" is "$(wakes "$pid")" "$wakes"
    others=(/sys/bus/pci/devices/0000:*/uevent)
    ticks=$(ticks "$pid") began=$(cut -d' ' -f1 /proc/uptime)
    for ((i = 0; i < 1000; i += 2)); do
        echo change >/sys/devices/virtual/mem/null/uevent
        echo change >"${others[$((i / 2 % ${#others[@]}))]}"
    done
    sleep 2
    echo "1000 events from $began to $(cut -d' ' -f1 /proc/uptime): $(($(ticks "$pid") - ticks)) ticks of $(getconf CLK_TCK) a second"
    check "it still waits" phase waiting-for-gpu
    for ((i = 0; i < 500; i++)); do echo change >/sys/devices/virtual/mem/null/uevent; done &
    plug_gpu
    wait $!
    check "a GPU comes in a storm, and it goes on to ready" wait_for 240 ready_or_ended waiting
    check "ready" ready
    take_down waiting
    unplug_gpu
    start stopped -e NO_GPU=wait -- nvidia-driver init
    check "it waits" wait_for 120 phase waiting-for-gpu
    container "$runtime" stop --time 30 stopped >/dev/null
    check "a signal ends the wait" is "$(exit_of stopped)" 143
    untouched
    plug_gpu
fi

if scenario "NVLink 5, and no fabric manager"; then
    # The kernel's own folder of InfiniBand devices, with one put over it: nothing here has such a function.
    modprobe ib_core
    mkdir -p /tmp/infiniband/mlx5_0/device && printf '\202\036ConnectX SW_MNG' >/tmp/infiniband/mlx5_0/device/vpd
    start nvlink -v /tmp/infiniband:/sys/class/infiniband:ro -- nvidia-driver init
    refused nvlink 29 "NVLink 5 managed through mlx5_0"
    untouched
    rmmod ib_core
fi

if scenario "/run/nvidia is not shared"; then
    shared=("${common[@]}")
    common=("${common[@]/:rshared/:rprivate}")
    start private -- nvidia-driver init
    refused private 7 "is mounted private" "rshared"
    common=("${shared[@]}")
    untouched
fi

if scenario "a capability is missing"; then
    tries poor <<'END'
5|missing capabilities: SYS_MODULE, MKNOD|setpriv --bounding-set -sys_module,-mknod nvidia-driver init
0|Blocked (no-privilege): missing capabilities: SYS_MODULE && publish the ready markers|setpriv --bounding-set -sys_module driverctr plan
5|ok       gpu |setpriv --bounding-set -sys_module driverctr doctor
END
    untouched
    start rich -- setpriv --bounding-set -sys_resource nvidia-driver init
    check "what we do not need may be missing" wait_for 240 ready_or_ended rich
    check "ready" ready
    take_down rich
fi

if scenario "a driver on the host"; then
    tree=/lib/modules/$(uname -r)
    cp -a "$tree/modules.dep" /tmp/modules.dep
    mkdir -p "$tree/updates/dkms"
    tries beside -v "$VM_HOST/modules/nvidia.ko:/theirs.ko:ro" -e "tree=/proc/1/root$tree" <<'END'
28|/usr/sbin/nvidia-smi|smi=/proc/1/root/usr/sbin/nvidia-smi; printf ELF >$smi; chmod 755 $smi; nvidia-driver init; s=$?; rm $smi; exit $s
0|the host has a driver module of its own|cp /theirs.ko $tree/updates/dkms/nvidia.ko; echo updates/dkms/nvidia.ko: >>$tree/modules.dep; driverctr doctor
28|the module loaded is the host's own|insmod /theirs.ko; nvidia-driver init; s=$?; rmmod nvidia || s=1; exit $s
END
    rm -r "$tree/updates/dkms" && cp -a /tmp/modules.dep "$tree/modules.dep"
    untouched
fi

if scenario "the kernel wants signatures"; then
    umount /sys/kernel/security 2>/dev/null
    # Signed, but by nobody the kernel knows: only the load tells.
    openssl req -new -x509 -newkey rsa:2048 -nodes -subj /CN=nobody/ -keyout /tmp/key -out /tmp/cert 2>/dev/null
    cp -r /images/stand-in/opt/driverctr/modules /tmp/signed
    for module in /tmp/signed/*/*/*.ko; do
        /usr/lib/linux-kbuild-*/scripts/sign-file sha256 /tmp/key /tmp/cert "$module"
    done
    sums /tmp/signed
    # What cannot be seen is no refusal; what can is the host's.
    tries signatures -v /tmp/signed:/signed:ro -e security=/proc/1/root/sys/kernel/security <<'END'
0|lockdown cannot be seen|driverctr doctor
0|the kernel asks for no signatures|nsenter -t 1 -m mount -t securityfs securityfs /sys/kernel/security; driverctr doctor
9|lockdown is integrity|echo integrity >$security/lockdown; nvidia-driver init
9|module.sig_enforce is set|echo 1 >/sys/module/module/parameters/sig_enforce; nvidia-driver init
39|the kernel rejects it: module with unavailable key && MOK|MODULES_DIR=/signed nvidia-driver load
END
    untouched
fi

if scenario "no modules until the next boot"; then
    echo 1 >/proc/sys/kernel/modules_disabled
    start disabled -- nvidia-driver init
    refused disabled 8 "kernel.modules_disabled is 1"
    untouched
fi

finish
