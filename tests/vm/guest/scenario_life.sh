# The stand-in driver's whole life, and that the stand-in programs misbehave on demand.
. /mnt/guest/scenario.sh
set_up "$1"

if scenario "init, ready, stop"; then
    bring_up life
    check "modules came from the set in the image" said life "take the modules on disk"
    check "persistenced runs" test -n "$(persistenced)"
    check "it holds a device, as the real one does" test "$(cat /sys/module/nvidia/refcnt)" -gt 2
    check "nvidia-smi" inside life nvidia-smi
    check "a query" is "$(inside life nvidia-smi --query-gpu=index,pci.bus_id,mig.mode.current --format=csv,noheader)" \
        "0, 00000001:01:00.0, Disabled"
    take_down life
    nothing_left
fi

if scenario "nvidia-smi and persistenced obey orders"; then
    echo 'echo "No devices were found"; exit 6' >$orders/smi
    start smi -- nvidia-driver init
    refused smi 31 "no GPU could be initialised"
    remove smi
    cat >$orders/smi <<'END'
printf '<4>%s\n' 'NVRM: API mismatch: the client has the version 550.90.07, but' \
    'NVRM: this kernel module has the version 535.309.01.' >/dev/kmsg
echo 'Failed to initialize NVML: Driver/library version mismatch'
exit 18
END
    start mismatch -- nvidia-driver init
    refused mismatch 41 "userspace and kernel modules are of different versions" "the client has the version 550.90.07"
    rm $orders/smi
    echo 'fail no such thing as a GPU' >$orders/persistenced
    start daemon -- nvidia-driver init
    refused daemon 25 "no such thing as a GPU"
    nothing_left
fi

if scenario "an order to die"; then
    echo die >$orders/persistenced
    start dying -- nvidia-driver init
    # Missed when it is started, or by the check that ready depends on: that is a matter of milliseconds.
    exit_of dying >/tmp/dying
    check "a status of its own" grep -qE '^(25|30)$' /tmp/dying
    check "it says who" said dying "nvidia-persistenced"
    check "never ready" fails ready
fi

finish
