# shellcheck shell=sh disable=SC2154
# The script at the head of a run-file, for makeself's --header, which sources it: makeself sets the variables below and
# archname. NVIDIA's run-files are made by a makeself of their own (1.6.0-nv, in each of them as makeself.sh); what is
# told of a file in its first lines, and the options that are not the installer's, are as there.
# RUNFILE_VERSION and RUNFILE_ARCH come from the environment.
cat > "$archname" << HEADER
#! /bin/sh
CRCsum=${CRCsum:-0000000000}
MD5=${MD5sum:-00000000000000000000000000000000}
skip=$((SKIP + 1))
label="$LABEL"
version_string=$RUNFILE_VERSION
pkg_version=1
script=$SCRIPT
targetdir=$archdirname
TARGET_OS="Linux"
TARGET_ARCH="$RUNFILE_ARCH"
TMPROOT=\${TMPDIR:=/tmp}

# This is a stand-in for NVIDIA's run-file, made for tests.

check() {
    sum=\$(tail -n +\$skip "\$0" | cksum | cut -d' ' -f1)
    [ "\$sum" = "\$CRCsum" ] || {
        echo "Error in checksums \$sum \$CRCsum"
        exit 2
    }
    sum=\$(tail -n +\$skip "\$0" | md5sum | cut -b-32)
    [ "\$sum" = "\$MD5" ] || {
        echo "Error in md5 sums \$sum \$MD5"
        exit 2
    }
}

case \$1 in
--info)
    echo "  Identification    : \$label"
    echo "  Target directory  : \$targetdir"
    echo "  Uncompressed size : ${USIZE:-0} KB"
    exit 0
    ;;
--version-string) echo "\$version_string"; exit 0 ;;
--target-arch) echo "\$TARGET_ARCH"; exit 0 ;;
--check)
    check
    echo "check sums and md5 sums are ok"
    exit 0
    ;;
esac

run_script=y
while [ \$# -gt 0 ]; do
    case \$1 in
    -x | --extract-only) run_script=n ;;
    --target)
        targetdir=\$2
        shift
        ;;
    *) scriptargs="\$scriptargs \$1" ;;
    esac
    shift
done
if [ -e "\$targetdir" ]; then
    echo "The directory '\$targetdir' already exists.  Please either move the existing directory out of the way"
    exit 1
fi
[ "\$TARGET_ARCH" = "\$(uname -m)" ] || {
    echo "ERROR: this .run file is intended for the Linux-\$TARGET_ARCH platform"
    exit 1
}
check
mkdir -p "\$targetdir" || exit 1
echo "Uncompressing \$label"
tail -n +\$skip "\$0" | gzip -cd | tar -xof - -C "\$targetdir" || {
    echo "Extraction failed."
    exit 1
}
[ "\$run_script" = y ] || exit 0
cd "\$targetdir" || exit 1
# shellcheck disable=SC2086
\$script \$scriptargs
exit \$?
HEADER
