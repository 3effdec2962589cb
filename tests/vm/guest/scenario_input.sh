# Bad input that only a kernel shows: a full or read-only /run/nvidia, parameters refused. The host is as found.
. /mnt/guest/scenario.sh
set_up "$1"
mkdir -p /tmp/drivers
drivers=(-v /tmp/drivers:/drivers:ro)

# small FOLDER SIZE: a file system of that size, to be full or read-only.
small() { mkdir -p "$1" && mount -t tmpfs -o "size=$2" small "$1"; }

if scenario "parameters: of the wrong type, unknown and refused, malformed"; then
    echo 'NVreg_DeviceFileMode=rw-rw-rw-' >/tmp/drivers/nvidia.conf
    stand_in nvidia
    former=$(stat -c %Y /sys/module/nvidia)
    start value "${drivers[@]}" -- nvidia-driver init
    refused value 40 "NVreg_DeviceFileMode='rw-rw-rw-' is not a whole number"
    check "what was loaded stays loaded" is "$(stat -c %Y /sys/module/nvidia)" "$former"
    rmmod nvidia
    echo 'NVreg_DeviceFileMod=432' >/tmp/drivers/nvidia.conf
    start unknown "${drivers[@]}" -e UNKNOWN_PARAMETERS=refuse -- nvidia-driver init
    refused unknown 40 "nvidia has no parameter NVreg_DeviceFileMod" "near: NVreg_DeviceFileMode"
    printf 'NVreg_RegistryDwords="a=1\n' >/tmp/drivers/nvidia.conf
    start malformed "${drivers[@]}" -- nvidia-driver init
    refused malformed 3 "a quotation mark is not closed"
    nothing_left
fi

if scenario "an unknown parameter is a warning, and the kernel takes the rest"; then
    printf 'NVreg_DeviceFileMod=432\nNVreg_DeviceFileMode=0640\n' >/tmp/drivers/nvidia.conf
    bring_up warned "${drivers[@]}"
    check "it warns" said warned "the kernel will ignore it"
    check "the parameter that is known was taken" grep -x 'DeviceFileMode: 416' /proc/driver/nvidia/params
    take_down warned
    nothing_left
fi

if scenario "/run/nvidia is full, or read-only"; then
    small /run/nvidia 64k
    mount --make-shared /run/nvidia
    mkdir -p /run/nvidia/driver
    head -c 65536 /dev/zero >/run/nvidia/fill 2>/dev/null
    start full -- nvidia-driver init
    refused full 15 "No space left on device"
    rm /run/nvidia/fill
    mount -o remount,ro /run/nvidia
    start readonly -- nvidia-driver init
    refused readonly 32 "Read-only file system"
    umount -l /run/nvidia
    nothing_left
fi

finish
