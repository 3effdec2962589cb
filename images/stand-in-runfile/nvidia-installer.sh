#!/bin/sh
# A stand-in for NVIDIA's nvidia-installer, for tests: it knows the options of the real one that we give it, and copies
# files as the .manifest of the folder says. What it was called with stands in
# /usr/share/doc/NVIDIA_GLX-1.0/arguments. STAND_IN_ROOT is where it installs, /; STAND_IN_FAILS makes it fail.
set -u

root=${STAND_IN_ROOT:-}
log=/var/log/nvidia-installer.log
x_module_path=/usr/lib/xorg/modules
kernel_module=y
modprobe=y
source=y
# As the real one: 32-bit libraries too, unless told otherwise; its build for x86_64 alone knows the word.
compat32=y
machine=$(uname -m)
arguments=$*

fail() {
    printf 'ERROR: %s\n' "$1" >> "$log"
    printf 'ERROR: %s\n' "$1" >&2
    printf '\nERROR: Installation has failed.  Please see the file '\''%s'\'' for details.\n' "$log" >&2
    exit 1
}

for word; do
    case $word:$machine in
    *-install-compat32-libs:x86_64) ;;
    *-install-compat32-libs:*) word=$word-on-$machine ;;
    esac
    case $word in
    --silent | --ui=none | --no-questions | --accept-license) ;;
    --no-kernel-module | --no-kernel-modules) kernel_module=n ;;
    --no-kernel-module-source) source=n ;;
    --no-nvidia-modprobe) modprobe=n ;;
    --install-compat32-libs) compat32=y ;;
    --no-install-compat32-libs) compat32=n ;;
    --no-nouveau-check | --no-rpms | --no-backup | --no-check-for-alternate-installs) ;;
    --no-libglx-indirect | --no-install-libglvnd | --no-systemd) ;;
    --x-module-path=*) x_module_path=${word#*=} ;;
    --x-prefix=* | --x-library-path=* | --x-sysconfig-path=*) ;;
    --log-file-name=*) log=${word#*=} ;;
    *)
        printf '%s: unrecognized option '\''%s'\''\n' "$0" "$word" >&2
        exit 1
        ;;
    esac
done

printf 'nvidia-installer log file '\''%s'\''\n' "$log" > "$log" || exit 1
[ -f .manifest ] || fail 'No package found for installation.'
version=$(sed -n 2p .manifest)
printf 'Installing NVIDIA driver version %s.\n' "$version" >> "$log"
[ -z "${STAND_IN_FAILS:-}" ] || fail "$STAND_IN_FAILS"
[ "$kernel_module" = n ] || fail 'Unable to find the kernel source tree for the currently running kernel.'

# RHEL has no folder by the name of a triplet; the Debian that stands for it in tests does.
if [ -d "$root/usr/lib/$machine-linux-gnu" ] && ! grep -qs '^ID="rhel"' "$root/etc/os-release"; then
    libraries=/usr/lib/$machine-linux-gnu
elif [ -d "$root/usr/lib64" ]; then
    libraries=/usr/lib64
else
    libraries=/usr/lib
fi

put() { # FILE MODE PATH
    if ! { mkdir -p "$root${3%/*}" && cp "$1" "$root$3" && chmod "$2" "$root$3"; }; then
        fail "Unable to copy '$1' to '$3'"
    fi
}

link() { # NAME FOLDER TARGET
    if ! { mkdir -p "$root$2" && ln -sf "$3" "$root$2/$1"; }; then
        fail "Unable to create symlink '$2/$1'"
    fi
}

install_entry() { # FILE MODE TYPE ARCH-OR-MORE MORE MORE
    name=${1##*/}
    folder=$libraries
    case "$4" in
    COMPAT32)
        [ "$compat32" = y ] || return 0
        folder=/usr/lib32
        ;;
    esac
    case $3 in
    KERNEL_MODULE_SRC) [ "$source" = n ] || put "$1" "$2" "/usr/src/nvidia-$version/${1#*/}" ;;
    UTILITY_LIB | OPENGL_LIB | NVCUVID_LIB | ENCODEAPI_LIB | CUDA_LIB | OPENCL_LIB) put "$1" "$2" "$folder/$name" ;;
    UTILITY_LIB_SYMLINK) link "$name" "$folder" "$5" ;;
    CUDA_SYMLINK) link "$name" "$folder" "$6" ;;
    UTILITY_BINARY) put "$1" "$2" "/usr/bin/$name" ;;
    INSTALLER_BINARY)
        put "$1" "$2" "/usr/bin/$name"
        link nvidia-uninstall /usr/bin "$name"
        ;;
    NVIDIA_MODPROBE) [ "$modprobe" = n ] || put "$1" 4755 "/usr/bin/$name" ;;
    FIRMWARE) put "$1" "$2" "/lib/firmware/nvidia/$version/$name" ;;
    CUDA_ICD) put "$1" "$2" "/etc/OpenCL/vendors/$name" ;;
    VULKAN_ICD_JSON) put "$1" "$2" "/usr/share/vulkan/icd.d/$name" ;;
    EXPLICIT_PATH) put "$1" "$2" "$4/$name" ;;
    GLVND_EGL_ICD_JSON) put "$1" "$2" "/usr/share/glvnd/egl_vendor.d/$name" ;;
    XMODULE_SHARED_LIB) put "$1" "$2" "$x_module_path/drivers/$name" ;;
    SYSTEMD_UNIT)
        put "$1" "$2" "/usr/lib/systemd/system/$name"
        link "$name" /etc/systemd/system/systemd-suspend.service.requires "/usr/lib/systemd/system/$name"
        ;;
    DOCUMENTATION) put "$1" "$2" "/usr/share/doc/NVIDIA_GLX-1.0/$name" ;;
    *) fail "Invalid .manifest file; type $3" ;;
    esac
}

tail -n +9 .manifest > "$log.entries"
while read -r file mode type first second third; do
    install_entry "$file" "$mode" "$type" "$first" "$second" "$third"
done < "$log.entries"
rm "$log.entries"
mkdir -p "$root/usr/share/doc/NVIDIA_GLX-1.0"
printf '%s\n' "$arguments" > "$root/usr/share/doc/NVIDIA_GLX-1.0/arguments"
mkdir -p "$root/var/lib/nvidia" && printf '%s\n' "$version" > "$root/var/lib/nvidia/log"
[ -n "$root" ] || ldconfig
printf 'Installation of the driver (version: %s) is now complete.\n' "$version" >> "$log"
