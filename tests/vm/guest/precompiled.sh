# precompiled.sh RUNTIME: the whole life of an image for this kernel, with NVIDIA's real modules in it, on a host without
# headers and in a container without a network; and the same image where another kernel runs than its own.
# /images/driver: the image's root.
. /mnt/guest/scenario.sh
set_up "$1" /images/driver
release=$(uname -r)
export network=none
common+=(-e VERIFY_DEPTH=devices)
set_folder=/images/driver/opt/driverctr/modules/$release/$driver-proprietary

loaded_build_id() { tail -c 20 "/sys/module/$1/notes/.note.gnu.build-id" | od -An -tx1 | tr -d ' \n'; }
file_build_id() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["modules"][sys.argv[2]]["build_id"])' "$set_folder/manifest.json" "$1"; }
same_build() { [ "$(loaded_build_id "${1//-/_}")" = "$(file_build_id "$1")" ]; }

if scenario "its own kernel: no headers, no compiler, no network, and ready"; then
    check "the host has no headers" absent "/lib/modules/$release/build/Makefile"
    bring_up own
    check "with the modules of the image" said own "take the modules on disk (/opt/driverctr/modules/$release)"
    for module in nvidia nvidia-uvm nvidia-modeset; do
        check "$module in the kernel is the very build of our file" same_build "$module"
    done
    check "no warning about the kernel's build" fails said own "was made for the build"
    check "it has no compiler" fails inside own sh -c "command -v gcc || command -v make"
    check "it has no network" is "$(inside own ls /sys/class/net)" lo
    check "the driver root is there" test -e /run/nvidia/driver/usr/bin/nvidia-smi
    check "no modules are built for kernels that come next" said own "this image is for $release"
    take_down own
    nothing_left
fi

sed "s/\"kernel_release\": \"[^\"]*\"/\"kernel_release\": \"6.1.0-1-amd64\"/" \
    /images/driver/usr/share/driverctr/image.json >/tmp/image.json
other=(-v /tmp/image.json:/usr/share/driverctr/image.json:ro)

if scenario "another kernel: refused before anything is touched, with the tag that fits"; then
    start other "${other[@]}" -- nvidia-driver init
    refused other 38 "this image is precompiled for kernel 6.1.0-1-amd64, and the node's is $release" \
        "535-$release-debian12" "PRECOMPILED_FALLBACK=true"
    nothing_left
fi

if scenario "another kernel, and the user wants a fallback: what is at hand serves, or what lacks is told"; then
    start lacking "${other[@]}" -e PRECOMPILED_FALLBACK=true -e MODULES_DIR=/tmp/none -- nvidia-driver init
    refused lacking 10 "it has no module source and no compiler" "REMOTE_URL is not set"
    bring_up fallback "${other[@]}" -e PRECOMPILED_FALLBACK=true
    take_down fallback
    nothing_left
fi
finish
