#!/usr/bin/env bash
# Runs the tests of the AVX-512 kernels: on this processor where it has AVX-512 with VNNI, otherwise on one that Bochs emulates.
# Emulation needs Debian's package registry (packages are downloaded and unpacked, none is installed), a C++ compiler and make; what
# it builds is kept in target/emulator. The emulated processor tells right from wrong, not fast from slow.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo test --workspace --lib --locked --no-run
tests=$(cargo test --workspace --lib --locked --no-run 2>&1 | grep -o 'target/debug/deps/apr_engine-[0-9a-f]*')
filter=(avx512 simd::tests simd::attention_tests simd::peak)

if grep -q avx512_vnni /proc/cpuinfo; then
    "$tests" "${filter[@]}"
    exit
fi

home=$PWD/target/emulator
root=$home/root
libraries=$root/usr/lib/x86_64-linux-gnu

# Bochs 3.0 as Debian has it; its kernel, which boots in seconds; what puts both onto a CD.
build() {
    local version=3.0+dfsg sum=78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b kernel
    rm -rf "$home" && mkdir -p "$home/packages" "$home/source" "$root"
    apt-cache show linux-image-cloud-amd64 > /dev/null 2>&1 || apt-get -qq update
    kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {print $2}')
    (cd "$home/packages" && apt-get -qq -o APT::Sandbox::User=root download bochsbios vgabios busybox-static isolinux syslinux-common xorriso \
        libburn4 libjte2 libisofs6 libisoburn1 "$kernel")
    for package in "$home"/packages/*.deb; do dpkg -x "$package" "$root"; done
    curl -fsSL --retry 3 "http://deb.debian.org/debian/pool/main/b/bochs/bochs_$version.orig.tar.xz" -o "$home/bochs.tar.xz"
    echo "$sum  $home/bochs.tar.xz" | sha256sum -c --quiet -
    tar -xf "$home/bochs.tar.xz" -C "$home/source" --strip-components=1
    (cd "$home/source" && ./configure --enable-x86-64 --enable-cpu-level=6 --enable-fpu --enable-avx --enable-evex \
        --enable-all-optimizations --disable-docbook --disable-logging --disable-show-ips --with-nogui \
        CFLAGS=-O2 CXXFLAGS=-O2 && make -j"$(nproc)" bochs) > "$home/build.log" 2>&1 || { tail "$home/build.log"; exit 1; }
    mv "$home/source/bochs" "$home/bochs"
}
[ -x "$home/bochs" ] || build

run=$(mktemp -d)
emulator=
trap '[ -z "$emulator" ] || kill "$emulator" 2>/dev/null || true; rm -rf "$run"' EXIT

# The guest: the test binary, the libraries that it names, and a shell that starts it and tells its exit status.
mkdir -p "$run"/guest/{bin,proc,sys,dev,tmp} "$run/cd"
cp "$root/bin/busybox" "$run/guest/bin/"
strip -o "$run/guest/bin/tests" "$tests"
ldd "$tests" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$run/guest$(dirname "$library")" && cp -L "$library" "$run/guest$library"
done
cat > "$run/guest/init" <<INIT
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
export HOME=/tmp
# Tests of instructions that are not there would pass.
/bin/busybox grep -q avx512_vnni /proc/cpuinfo && /bin/tests --test-threads=1 ${filter[*]} > /dev/ttyS0 2>&1
echo "exit status: \$?." > /dev/ttyS0
/bin/busybox sleep 1000
INIT
chmod +x "$run/guest/init"
(cd "$run/guest" && find . | "$root/bin/busybox" cpio -o -H newc 2>/dev/null) > "$run/cd/initrd"
cp "$root"/boot/vmlinuz-* "$run/cd/vmlinuz"
cp "$root/usr/lib/ISOLINUX/isolinux.bin" "$root/usr/lib/syslinux/modules/bios/ldlinux.c32" "$run/cd/"

# Without ACPI, PCI and the kernel's own tests it boots faster; 580, fast short moves, is promised and not kept by the emulator.
cat > "$run/cd/isolinux.cfg" <<CFG
DEFAULT tests
LABEL tests
 KERNEL /vmlinuz
 INITRD /initrd
 APPEND quiet console=ttyS0 mitigations=off nosmp acpi=off pci=off tsc=reliable tsc_early_khz=20000 lpj=80000 clearcpuid=580 cryptomgr.notests=1 random.trust_cpu=on panic=-1
CFG
LD_LIBRARY_PATH=$libraries "$root/usr/bin/xorriso" -as mkisofs -quiet -o "$run/cd.iso" -b isolinux.bin -c boot.cat \
    -no-emul-boot -boot-load-size 4 -boot-info-table "$run/cd" 2>/dev/null

cat > "$run/machine" <<MACHINE
config_interface: textconfig
display_library: nogui
cpu: model=sapphire_rapids, count=1, ips=20000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest=1024, host=1024
romimage: file=$root/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=$root/usr/share/vgabios/vgabios.bin
vga: extension=vbe, update_freq=1
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=$run/cd.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$run/serial
clock: sync=none, time0=utc
pci: enabled=1, chipset=i440fx
log: $run/log
panic: action=fatal
error: action=ignore
MACHINE
"$home/bochs" -q -f "$run/machine" > "$run/screen" 2>&1 < /dev/null &
emulator=$!

deadline=$((SECONDS + 900))
until status=$(grep -aoE 'exit status: [0-9]+\.' "$run/serial" 2>/dev/null); do
    if [ $SECONDS -ge $deadline ] || ! kill -0 "$emulator" 2>/dev/null; then
        echo "the emulated machine gave no answer" >&2
        tail -n 20 "$run/serial" "$run/log" "$run/screen" >&2
        exit 1
    fi
    sleep 1
done
tr -d '\r' < "$run/serial" | sed -n '/^running/,/^test result/p'
grep -aq 'avx512::tests::.* ok' "$run/serial" || { echo "no test of AVX-512 was green" >&2; exit 1; }
status=${status##* }
exit "${status%.}"
