# shellcheck shell=bash
# Helpers for scenarios in the virtual machine; source it: . /usr/lib/vm-host/lib.sh
VM_HOST=/usr/lib/vm-host

# plug_gpu [CHIP [DOMAIN:BUS]]: put an emulated NVIDIA GPU into the machine, by default an A100 at 0001:01:00.0.
plug_gpu() {
    local chip=${1:-a100} where=${2:-1:1}
    insmod "$VM_HOST/modules/emulated-gpu.ko" chip="$chip" domain="$((16#${where%:*}))" bus="$((16#${where#*:}))"
}

# unplug_gpu: take it out again, whatever is bound to it.
unplug_gpu() {
    rmmod emulated_gpu
}

# stand_in MODULE [PARAMETER=VALUE...]: load one module of the stand-in driver, such as nvidia or nvidia-uvm.
stand_in() {
    local module=$1
    shift
    insmod "$VM_HOST/modules/$module.ko" "$@"
}

# wait_for SECONDS COMMAND...: run the command until it succeeds; fails when the time is over.
wait_for() {
    local limit=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$limit" ] || {
            echo "wait_for: no success in time: $*" >&2
            return 1
        }
        sleep 0.2
    done
}

_container_storage() {
    mountpoint -q "$1" || { mkdir -p "$1" && mount -t tmpfs -o mode=711 containers "$1"; }
}

# start_docker: start dockerd with its data in memory and wait until it answers.
start_docker() {
    docker version >/dev/null 2>&1 && return
    modprobe overlay
    _container_storage /var/lib/docker
    # On a busy machine its containerd may take longer than dockerd waits for it.
    until dockerd --exec-opt native.cgroupdriver=cgroupfs --iptables=false --ip6tables=false --bridge=none \
        >/var/log/dockerd.log 2>&1; do
        grep -q 'timeout waiting for containerd' /var/log/dockerd.log || break
    done >/dev/null 2>&1 & # the loop, too, must keep no pipe of the caller open
    wait_for 120 docker version || {
        tail -n 20 /var/log/dockerd.log >&2
        return 1
    }
}

# container RUNTIME COMMAND...: call docker, or podman set up for this host, with its own verbs (stop, logs, exec).
# RUNTIME is docker, podman-crun or podman-runc.
container() {
    local runtime=$1
    shift
    case $runtime in
    docker) docker "$@" ;;
    podman-*) podman --cgroup-manager=cgroupfs --events-backend=none --runtime="${runtime#podman-}" "$@" ;;
    *) echo "container: unknown runtime $runtime: docker, podman-crun or podman-runc" >&2 && return 2 ;;
    esac
}

# run_container RUNTIME NAME IMAGE [ARGUMENT...] [-- COMMAND...]: start a privileged container in the background.
# IMAGE is an image for docker and a folder for podman; a folder is left as it is, changes go to memory. $network is the
# container's network, the host's if not set. With $attached set it stays in the foreground: its output and its end are
# the container's.
run_container() {
    local runtime=$1 name=$2 image=$3 arguments=()
    shift 3
    [ -n "${attached:-}" ] || arguments=(--detach)
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        arguments+=("$1")
        shift
    done
    shift
    if [ "$runtime" = docker ]; then
        start_docker || return
        # The words are the whole command, also of an image that has an entrypoint.
        container docker run --privileged --network="${network:-host}" --entrypoint= --name "$name" \
            "${arguments[@]}" "$image" "$@"
    else
        _container_storage /var/lib/containers
        container "$runtime" run --privileged --network="${network:-host}" --log-driver=k8s-file \
            --name "$name" "${arguments[@]}" --rootfs "$image:O" "$@"
    fi
}
