# Failed loads in the kernel's words, and hangs in the kernel, which are left alone.
. /mnt/guest/scenario.sh
set_up "$1"
mkdir -p /tmp/drivers
common+=(-v /tmp/drivers:/drivers:ro)
orders_to() { echo "$2" >"/tmp/drivers/$1.conf"; }
no_orders() { rm -f /tmp/drivers/*; }
# let_go PARAMETER: the stand-in's hang is over.
let_go() { echo 0 >"/sys/module/nvidia/parameters/$1"; }
phase_is() { grep -q "\"phase\": \"$1\"" /run/nvidia/driverctr/status.json; }
state_is() { [ "$(cat "/sys/module/$1/initstate" 2>/dev/null)" = "$2" ]; }

# altered NAME FILE PYTHON: our module set in /tmp/sets/NAME, one file changed (`data` is its bytes), its manifest too.
altered() {
    mkdir -p /tmp/sets && cp -r /images/stand-in/opt/driverctr/modules "/tmp/sets/$1"
    python3 - "$@" <<'PYTHON'
import glob, sys
name, file, change = sys.argv[1:]
[path] = glob.glob(f"/tmp/sets/{name}/*/*/{file}.ko")
scope = {"data": bytearray(open(path, "rb").read())}
before = bytes(scope["data"])
exec(change, scope)
assert bytes(scope["data"]) != before, "nothing was changed"
open(path, "wb").write(scope["data"])
PYTHON
    sums "/tmp/sets/$1"
}

if scenario "init fails with an errno"; then
    tries failing -e asked=/proc/1/root/tmp/drivers/nvidia.conf <<'END'
16|out of memory|echo fail_init=12 >$asked; nvidia-driver init
36|it found no device|echo fail_init=19 >$asked; nvidia-driver init
20|Input/output error|echo fail_init=5 >$asked; nvidia-driver init
END
    no_orders
    nothing_left
fi

if scenario "modules for another kernel, another processor, of another build; a symbol that the kernel does not have"; then
    altered magic nvidia 'data = data.replace(b"mod_unload modversions", b"mod_unloaX modversions")'
    altered layout nvidia 'data[data.find(b"module_layout\0") - 8] ^= 255'
    altered symbol nvidia-uvm 'data = data.replace(b"param_ops_uint\0", b"param_ops_uinX\0")'
    altered build nvidia-uvm 'data[data.find(b"nvUvmInterfaceSessionCreate\0") - 8] ^= 255'
    altered processor nvidia 'data[18] = 183'
    tries altered -v /tmp/sets:/sets:ro <<'END'
38|mod_unloaX|MODULES_DIR=/sets/magic nvidia-driver load
38|module_layout differs|MODULES_DIR=/sets/layout nvidia-driver load
37|param_ops_uinX|MODULES_DIR=/sets/symbol nvidia-driver load
41|another build|MODULES_DIR=/sets/build nvidia-driver load
42|is for aarch64|MODULES_DIR=/sets/processor nvidia-driver load
END
    nothing_left
fi

if scenario "a load that hangs in the kernel"; then
    orders_to nvidia "hang_init=600"
    start hanging -e LOAD_TIMEOUT=5 -- nvidia-driver init
    refused hanging 35 "no signal ends it" "nvidia_init"
    check "it says that it sleeps in the kernel" said_state hanging
    check "it did not wait for the kernel" state_is nvidia coming
    check "the status says so" phase_is stuck
    check "nothing is undone: the driver root stays" test -n "$(driver_mounts)"
    check "never said to be ready" fails ready
    no_orders
    start next -e LOAD_TIMEOUT=6 -- nvidia-driver init
    refused next 35 "the load of nvidia has not ended" "modprobe"
    check "nothing more was touched" state_is nvidia coming
    let_go hang_init
    wait_for 60 state_is nvidia live
    start cleaner -- driverctr unload
    check "once the kernel is done, unload cleans up" is "$(exit_of cleaner)" 0
    nothing_left
fi

if scenario "a signal in the middle of a long load: out in time, and the next start waits for the load"; then
    orders_to nvidia "hang_init=600"
    start stopped -e STOP_TIMEOUT=12 -- nvidia-driver init
    check "modprobe is in the kernel" wait_for 120 state_is nvidia coming
    kill -TERM "$(cat /run/nvidia/nvidia-driver.pid)"
    began=$(date +%s)
    check "it gives up" wait_for 60 phase_is stuck
    took=$(($(date +%s) - began))
    check "within STOP_TIMEOUT, and a little for the emulation: $took s" test $took -le 18
    check "modprobe had some of it" test $took -ge 4
    refused stopped 35 "no signal ends it" "nvidia_init"
    check "it says that it sleeps in the kernel" said_state stopped
    check "the load has not ended" state_is nvidia coming
    check "no marker stays" is "$(find $validations -type f)" ""
    no_orders
    start next -- nvidia-driver init
    check "the next says what it waits for" wait_for 60 said next "the load of nvidia has not ended"
    let_go hang_init
    check "it is ready once that has ended" wait_for 120 ready
    take_down next
    nothing_left
fi

if scenario "an unload that hangs in the kernel"; then
    # Whatever can hang, hangs: nvidia-smi, the daemon, and rmmod.
    echo deaf >$orders/persistenced
    bring_up leaving -e STOP_TIMEOUT=12
    echo 600 >/sys/module/nvidia/parameters/hang_exit
    echo 'sleep 99' >$orders/smi
    began=$(date +%s)
    # The runtime waits for rmmod too, which no signal ends: what counts is when our program had its last word.
    container "$runtime" stop --time 90 leaving >/dev/null &
    stopping=$!
    check "it gives up" wait_for 60 phase_is stuck
    took=$(($(date +%s) - began))
    check "the stop takes little more than STOP_TIMEOUT: $took s" test $took -le 24
    check "and needs some of it" test $took -ge 5
    check "it did not wait for the kernel" state_is nvidia going
    check "the status says so" phase_is stuck
    check "the driver root stays" test -n "$(driver_mounts)"
    check "no marker stays" is "$(find $validations -type f)" ""
    start next -- nvidia-driver init
    refused next 35 "the unload of nvidia has not ended" "rmmod"
    let_go hang_exit
    wait_for 60 absent /sys/module/nvidia
    wait $stopping
    refused leaving 35 "no signal ends it" "nvidia_exit"
    check "it says that it sleeps in the kernel" said_state leaving
    start cleaner -- driverctr unload
    check "once the kernel is done, unload cleans up" is "$(exit_of cleaner)" 0
    nothing_left
fi

finish
