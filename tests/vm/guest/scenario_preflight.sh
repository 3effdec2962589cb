# What init refuses before it touches anything, what it leaves alone, and how it waits for a GPU. The last scenarios
# take from the kernel, until its end, what the others need: their order matters.
. /mnt/guest/scenario.sh
set_up "$1"
gpu=/sys/bus/pci/devices/0001:01:00.0
bound() { basename "$(readlink "$1/driver" || echo /nothing)"; }
# swap_gpu CHIP: another one in its place.
swap_gpu() {
    unplug_gpu
    plug_gpu "$1"
}
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

if scenario "GPUs the release does not drive"; then
    swap_gpu k80
    start legacy -- nvidia-driver init
    refused legacy 18 "Tesla K80 is a legacy GPU: driver branch 470.xx drives it"
    swap_gpu b200
    start new -- nvidia-driver init
    refused new 19 "0001:01:00.0 (10de:2901) is newer than driver $driver"
    swap_gpu v100
    start type -e KERNEL_MODULE_TYPE=open -- nvidia-driver init
    refused type 26 "does not work with the open modules" "KERNEL_MODULE_TYPE=proprietary"
    untouched
    swap_gpu a100
fi

if scenario "GPUs that the release drives with the open modules only"; then
    # As lists of later releases have them, GH200 among them; none of this one's is.
    python3 - /images/driver/usr/share/nvidia/supported-gpus.json /tmp/supported-gpus.json <<'PYTHON'
import json, sys
known = json.load(open(sys.argv[1]))
for chip in known["chips"]:
    chip["features"].append("kernelopen" if chip["devid"].lower() == "0x20b0" else "gsp_proprietary_supported")
json.dump(known, open(sys.argv[2], "w"))
PYTHON
    list=(-v /tmp/supported-gpus.json:/usr/share/nvidia/supported-gpus.json:ro)
    start proprietary "${list[@]}" -e KERNEL_MODULE_TYPE=proprietary -- nvidia-driver init
    refused proprietary 26 "does not work with the proprietary modules of $driver" "Set KERNEL_MODULE_TYPE=open"
    start auto "${list[@]}" -- driverctr plan
    check "without a setting they are chosen" is "$(exit_of auto)" 0
    check "and it says so" said auto "driver $driver (open modules)"
    untouched
fi

if scenario "a GPU that belongs to another driver"; then
    # vfio-pci itself binds only behind an IOMMU, which there is none of here: it is reserved for it all the same.
    echo vfio-pci >$gpu/driver_override
    start reserved -- nvidia-driver init
    refused reserved 27 "is taken by vfio-pci"
    modprobe pci-stub
    echo pci-stub >$gpu/driver_override
    echo 0001:01:00.0 >/sys/bus/pci/drivers_probe
    check "it is bound to a driver that does nothing" is "$(bound $gpu)" pci-stub
    start taken -- nvidia-driver init
    refused taken 27 "is taken by pci-stub"
    check "it is left where it was" is "$(bound $gpu)" pci-stub
    # nouveau itself finds no firmware in the emulated GPU and lets it go: it has it reserved.
    echo nouveau >$gpu/driver_override
    echo 0001:01:00.0 >$gpu/driver/unbind
    start nouveau -- nvidia-driver init
    refused nouveau 27 "is taken by nouveau" "modprobe.blacklist=nouveau"
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

if scenario "an NVSwitch, and no fabric manager"; then
    swap_gpu nvswitch
    start fabric -e NO_GPU=wait -- nvidia-driver init
    refused fabric 29 "NVSwitch at 0001:01:00.0"
    untouched
    swap_gpu a100
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
    start poor -- setpriv --bounding-set -sys_module,-mknod nvidia-driver init
    refused poor 5 "missing capabilities: SYS_MODULE, MKNOD"
    start asked -- setpriv --bounding-set -sys_module driverctr plan
    check "plan needs no privilege" is "$(exit_of asked)" 0
    check "it says what blocks" said asked "Blocked (no-privilege): missing capabilities: SYS_MODULE"
    check "and prints the plan" said asked "publish the ready markers"
    start doctor -- setpriv --bounding-set -sys_module driverctr doctor
    check "doctor ends with the refusal's status" is "$(exit_of doctor)" 5
    check "and says the rest too" said doctor "ok       gpu "
    untouched
    start rich -- setpriv --bounding-set -sys_resource nvidia-driver init
    check "what we do not need may be missing" wait_for 240 ready_or_ended rich
    check "ready" ready
    take_down rich
fi

if scenario "a driver on the host"; then
    printf 'ELF' >/usr/sbin/nvidia-smi && chmod 755 /usr/sbin/nvidia-smi
    start smi -- nvidia-driver init
    refused smi 28 "/usr/sbin/nvidia-smi"
    rm /usr/sbin/nvidia-smi
    untouched
    tree=/lib/modules/$(uname -r)
    cp -a "$tree/modules.dep" /tmp/modules.dep
    mkdir -p "$tree/updates/dkms" && cp "$VM_HOST/modules/nvidia.ko" "$tree/updates/dkms"
    echo "updates/dkms/nvidia.ko:" >>"$tree/modules.dep"
    start beside -- driverctr doctor
    check "a module file that is not loaded is a warning" is "$(exit_of beside)" 0
    check "it is said" said beside "the host has a driver module of its own"
    insmod "$tree/updates/dkms/nvidia.ko"
    start loaded -- nvidia-driver init
    refused loaded 28 "the module loaded is the host's own"
    check "it stays loaded" test -e /sys/module/nvidia
    rmmod nvidia
    rm -r "$tree/updates/dkms" && cp -a /tmp/modules.dep "$tree/modules.dep"
fi

if scenario "the kernel wants signatures"; then
    umount /sys/kernel/security 2>/dev/null
    start unseen -- driverctr doctor
    check "what cannot be seen is no refusal" is "$(exit_of unseen)" 0
    check "and is said" said unseen "lockdown cannot be seen"
    mount -t securityfs securityfs /sys/kernel/security
    start seen -- driverctr doctor
    check "nothing is refused" is "$(exit_of seen)" 0
    check "the host's securityfs is read" said seen "the kernel asks for no signatures"
    echo integrity >/sys/kernel/security/lockdown
    start lockdown -- nvidia-driver init
    refused lockdown 9 "lockdown is integrity"
    echo 1 >/sys/module/module/parameters/sig_enforce
    start enforced -- nvidia-driver init
    refused enforced 9 "module.sig_enforce is set"
    # Signed, but by nobody the kernel knows: only the load tells.
    openssl req -new -x509 -newkey rsa:2048 -nodes -subj /CN=nobody/ -keyout /tmp/key -out /tmp/cert 2>/dev/null
    cp -r /images/stand-in/opt/driverctr/modules /tmp/signed
    for module in /tmp/signed/*/*/*.ko; do
        /usr/lib/linux-kbuild-*/scripts/sign-file sha256 /tmp/key /tmp/cert "$module"
    done
    sums /tmp/signed
    start untrusted -v /tmp/signed:/opt/driverctr/modules:ro -- nvidia-driver load
    refused untrusted 39 "the kernel rejects it: module with unavailable key" "MOK"
    untouched
fi

if scenario "no modules until the next boot"; then
    echo 1 >/proc/sys/kernel/modules_disabled
    start disabled -- nvidia-driver init
    refused disabled 8 "kernel.modules_disabled is 1"
    untouched
fi

finish
