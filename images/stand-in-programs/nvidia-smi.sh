#!/bin/bash
# Stand-in for nvidia-smi: tells of a healthy GPU for each one that the loaded driver has bound. As the real one, it
# refuses a driver of another version than that of libnvidia-ml beside it.
# The file /run/stand-in/smi is read before anything is answered, as a part of this script: it may set a value (such as
# values[mig.mode.current]=Enabled), define `answer`, sleep, or exit with a status of its own.
orders=/run/stand-in/smi
declare -A values=(
    [name]='NVIDIA A100-SXM4-40GB' [gpu_name]='NVIDIA A100-SXM4-40GB' [serial]=1320000000000
    [mig.mode.current]=Disabled [mig.mode.pending]=Disabled [compute_mode]=Default [persistence_mode]=Enabled
    [ecc.mode.current]=Enabled [ecc.mode.pending]=Enabled [memory.total]=40960
    [power.limit]=400.00 [power.default_limit]=400.00 [power.min_limit]=100.00 [power.max_limit]=400.00
    [clocks.applications.graphics]=1095 [clocks.applications.memory]=1215
    [clocks.default_applications.graphics]=1095 [clocks.default_applications.memory]=1215
    [clocks.max.graphics]=1410 [clocks.max.memory]=1215
)
declare -A units=([memory.total]=MiB [power.limit]=W [power.default_limit]=W [power.min_limit]=W [power.max_limit]=W)
version=
[ ! -e /sys/module/nvidia/version ] || version=$(</sys/module/nvidia/version)
shopt -s nullglob
gpus=(/proc/driver/nvidia/gpus/*)
libraries=(/usr/lib/"$HOSTTYPE"-linux-gnu/libnvidia-ml.so.[0-9][0-9][0-9].*)
library=${libraries[0]##*.so.}
fields='' list='' header=1 with_units=1

# query FIELD,FIELD...: a line for each GPU, as csv.
query() {
    local gpu index=0 one row uuid bus
    [ -z "$header" ] || echo "${1//,/, }"
    for gpu in "${gpus[@]}"; do
        # As the real one writes addresses: a domain of eight digits, capital letters.
        bus=0000${gpu##*/}
        printf -v uuid 'GPU-00000000-0000-0000-0000-%012d' $index
        values[index]=$index values[uuid]=$uuid values[gpu_uuid]=$uuid values[count]=${#gpus[@]}
        values[pci.bus_id]=${bus^^} values[gpu_bus_id]=${bus^^} values[driver_version]=$version
        row=
        for one in ${1//,/ }; do
            row+="${row:+, }${values[$one]-[N/A]}"
            [[ $one != clocks.* ]] || units[$one]=MHz
            [ -z "$with_units" ] || row+="${units[$one]:+ ${units[$one]}}"
        done
        echo "$row"
        index=$((index + 1))
    done
}

answer() {
    if [ -z "$version" ]; then
        echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest" \
            "NVIDIA driver is installed and running."
        exit 9
    elif [ "$library" != "$version" ]; then
        echo "Failed to initialize NVML: Driver/library version mismatch"
        echo "NVML library version: $library"
        exit 18
    elif [ -n "$list" ]; then
        header='' query index,name,uuid | sed -E 's/^(\S+), (.*), (\S+)$/GPU \1: \2 (UUID: \3)/'
    elif [ ${#gpus[@]} = 0 ]; then
        echo 'No devices were found'
        exit 6
    elif [ -n "$fields" ]; then
        query "$fields"
    else
        echo "NVIDIA-SMI $version  Driver Version: $version  (stand-in)"
        header='' query index,name,pci.bus_id
    fi
}

for word in "$@"; do
    case $word in
    --query-gpu=*) fields=${word#*=} ;;
    -L | --list-gpus) list=1 ;;
    --format=*)
        [[ $word != *noheader* ]] || header=
        [[ $word != *nounits* ]] || with_units=
        ;;
    esac
done
# shellcheck source=/dev/null
[ ! -e $orders ] || . $orders
answer
