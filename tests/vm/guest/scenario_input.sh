# Bad input that only a kernel shows: a full or read-only /run/nvidia, parameters refused. The host is as found.
. /mnt/guest/scenario.sh
set_up "$1"
mkdir -p /tmp/drivers
drivers=(-v /tmp/drivers:/drivers:ro)

# small FOLDER SIZE: a file system of that size, to be full or read-only.
small() { mkdir -p "$1" && mount -t tmpfs -o "size=$2" small "$1"; }

if scenario "parameters: of the wrong type, unknown and refused, malformed"; then
    stand_in nvidia
    tries parameters -v /tmp/drivers:/drivers <<'END'
40|NVreg_DeviceFileMode='rw-rw-rw-' is not a whole number|echo NVreg_DeviceFileMode=rw-rw-rw- >/drivers/nvidia.conf; t=$(stat -c %i%Y /sys/module/nvidia); nvidia-driver init; s=$?; [ "$(stat -c %i%Y /sys/module/nvidia)" = "$t" ] || { echo 'what was loaded did not stay'; s=1; }; rmmod nvidia; exit $s
40|nvidia has no parameter NVreg_DeviceFileMod && near: NVreg_DeviceFileMode|echo NVreg_DeviceFileMod=432 >/drivers/nvidia.conf; UNKNOWN_PARAMETERS=refuse nvidia-driver init
3|a quotation mark is not closed|echo 'NVreg_RegistryDwords="a=1' >/drivers/nvidia.conf; nvidia-driver init
END
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

if scenario "settings and files that make no sense"; then
    mkdir -p /tmp/files
    tries senseless -v /tmp/files:/drivers -e MODULES_DIR=/tmp/set <<'END'
3|DRIVER_VERSION='' is empty|DRIVER_VERSION= nvidia-driver init
3|DRIVER_VERSION='latest' is not a driver version|DRIVER_VERSION=latest nvidia-driver init
3|DRIVER_VERSION=535.230.02, but this image holds the userspace of 535.309.01|DRIVER_VERSION=535.230.02 nvidia-driver init
3|is not a driver version|DRIVER_VERSION=$(printf 'caf\351') nvidia-driver init
3|KERNEL_MODULE_TYPE='closed' is not one of auto, open, proprietary|KERNEL_MODULE_TYPE=closed nvidia-driver init
10|no open module source|KERNEL_MODULE_TYPE=open nvidia-driver load
3|--max-threads='0' is not a whole number from 1 to 4096|nvidia-driver init -m 0
3|--max-threads='x' is not|nvidia-driver init --max-threads x
3|--max-threads='100000' is not|nvidia-driver init -m 100000
2|unrecognized arguments|nvidia-driver init --max-thread 2
3|a quotation mark is not closed|echo 'NVreg_RegistryDwords="a=1' >/drivers/nvidia.conf; nvidia-driver init
3|a quotation mark is not closed|printf 'NVreg_RmMsg="one\ntwo"\n' >/drivers/nvidia.conf; nvidia-driver init
3|a NUL or another control character|printf 'NVreg_EnableMSI=1\0\n' >/drivers/nvidia.conf; nvidia-driver init
3|/drivers/nvidia-uvm.conf cannot be used: it has 1048576 bytes|rm /drivers/*; head -c 1M /dev/zero >/drivers/nvidia-uvm.conf; nvidia-driver init
3|Is a directory|rm /drivers/*; mkdir /drivers/nvidia-modeset.conf; nvidia-driver init; s=$?; rmdir /drivers/*; exit $s
42|this image is for arm64, the node is x86_64|cd /usr/share/driverctr && cp image.json /tmp && sed -i s/amd64/arm64/ image.json; nvidia-driver init; s=$?; cp /tmp/image.json .; exit $s
38|nvidia was built for kernel 6.0.0-1-other (vermagic)|cp -r /opt/driverctr/modules /tmp/set; sed -i "s/\"vermagic\": \"[^ ]*/\"vermagic\": \"6.0.0-1-other/" /tmp/set/*/*/manifest.json; nvidia-driver load
10|is not the file its manifest describes|rm -r /tmp/set; cp -r /opt/driverctr/modules /tmp/set; echo x >>/tmp/set/*/*/nvidia.ko; nvidia-driver load
32|Is a directory|mkdir $pid_file; nvidia-driver init; s=$?; rmdir $pid_file; exit $s
32|the pid file /run/nvidia/nvidia-driver.pid cannot be used: Permission denied|touch $pid_file; chmod 0 $pid_file; setpriv --bounding-set -dac_override,-dac_read_search nvidia-driver init; s=$?; rm $pid_file; exit $s
END
    nothing_left
fi

if scenario "5,000 variables, some that are no text, no os-release"; then
    touch /tmp/began
    start odd -- bash -c 'rm -f /etc/os-release /usr/lib/os-release
        for ((i = 0; i < 5000; i++)); do export "SERVICE_$i=tcp://10.0.0.1:$i"; done
        not_text=$(printf "caf\351")
        export http_proxy=$not_text "OTHER_$not_text=$not_text" LD_LIBRARY_PATH=/nowhere/$not_text
        exec nvidia-driver init'
    check "they disturb nobody" wait_for 240 ready_anew
    take_down odd
    nothing_left
fi

if scenario "a firmware path of somebody else's, and a read-only /lib/firmware"; then
    path=/sys/module/firmware_class/parameters/path theirs=/tmp/theirs
    mkdir -p $theirs /lib/firmware
    echo -n $theirs >$path
    bring_up foreign -v /lib/firmware:/lib/firmware:ro
    check "it warns" said foreign "the firmware search path is $theirs, set by somebody else: kept"
    check "and says what it cannot write" said foreign "Read-only file system; the kernel reads it through"
    check "the path is kept" is "$(cat $path)" $theirs
    check "the firmware lies where it points" \
        diff -r /images/driver/lib/firmware/nvidia/$driver $theirs/nvidia/$driver
    : </run/nvidia/driver/dev/nvidia0
    check "the kernel finds it" sh -c "dmesg | tail -n 5 | grep 'firmware nvidia/$driver/gsp_tu10x.bin, [0-9]* bytes'"
    take_down foreign
    check "the path stays theirs" is "$(cat $path)" $theirs
    check "nothing stays there" is "$(find $theirs -type f)" ""
    mount --bind $theirs $theirs && mount -o remount,bind,ro $theirs
    start refusing -- nvidia-driver init
    refused refusing 23 "the firmware search path is $theirs, but" "Read-only file system" "Make it writable"
    umount $theirs
    printf '\0' >$path
    nothing_left
fi

if scenario "/run/nvidia is full, nearly full, or read-only"; then
    small /run/nvidia 64k
    mount --make-shared /run/nvidia
    mkdir -p /run/nvidia/driver
    # Of its 16 pages so many are left.
    tries full <<'END'
15|No space left on device|head -c 65536 /dev/zero >/run/nvidia/fill; nvidia-driver init; s=$?; rm /run/nvidia/fill; exit $s
15|No space left on device|head -c 61440 /dev/zero >/run/nvidia/fill; nvidia-driver init; s=$?; rm /run/nvidia/fill; exit $s
15|No space left on device|head -c 53248 /dev/zero >/run/nvidia/fill; nvidia-driver init; s=$?; rm /run/nvidia/fill; exit $s
32|Read-only file system|nsenter -t 1 -m mount -o remount,ro /run/nvidia; nvidia-driver init
END
    umount -l /run/nvidia
    nothing_left
fi

if scenario "/lib/modules is full"; then
    # Small enough to be filled at once: what Docker has its containers in, and with it the container's own root.
    used=$(df --output=used -k /var/lib/docker | tail -n 1)
    mount -o "remount,size=$((used + 65536))k" /var/lib/docker
    tries overfull <<'END'
15|MB there|head -c 100M /dev/zero >/fill; nvidia-driver init; s=$?; rm /fill; exit $s
END
    mount -o remount,size=50% /var/lib/docker
    nothing_left
fi

finish
