SUMMARY = "eBPF agent that sends OpenTelemetry data"
DESCRIPTION = "The static binary of a release's archive, for Linux 5.8 and newer with CONFIG_BPF_SYSCALL, \
CONFIG_PERF_EVENTS and CONFIG_DEBUG_INFO_BTF; for a kernel without the last one a file of 4 KB, made once (docs/btf.md), takes its place."
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE-MIT;md5=d8451c6786ec744b7e6cee9e6e4c2708 \
                    file://LICENSE-APACHE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# Archives lie in files/ beside this recipe, or in a folder of FILESEXTRAPATHS.
EBPF_OTLP_FLAVOUR ??= "minimal"
EBPF_OTLP_ARCH:x86-64 = "x86_64"
EBPF_OTLP_ARCH:x86 = "i686"
EBPF_OTLP_ARCH:aarch64 = "aarch64"
EBPF_OTLP_ARCH:armv7a = "armv7"
EBPF_OTLP_ARCH:armv7ve = "armv7"
EBPF_OTLP_ARCH:riscv64 = "riscv64"
# For no other machine there is an archive, nor for these where they are big endian.
COMPATIBLE_HOST = "${@'(?!aarch64_be|armeb).*-linux' if d.getVar('EBPF_OTLP_ARCH') else 'null'}"
SRC_URI = "file://ebpf-otlp-${PV}-${EBPF_OTLP_ARCH}-${EBPF_OTLP_FLAVOUR}.tar.gz"
S = "${WORKDIR}/ebpf-otlp-${PV}-${EBPF_OTLP_ARCH}-${EBPF_OTLP_FLAVOUR}"

# systemd.bbclass takes out what the image's init system does not use.
inherit update-rc.d systemd
SYSTEMD_SERVICE:${PN} = "ebpf-otlp.service"
INITSCRIPT_NAME = "ebpf-otlp"
INITSCRIPT_PARAMS = "defaults 99 1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0755 ${S}/ebpf-otlp ${D}${bindir}/ebpf-otlp
    install -D -m 0644 ${S}/config.toml ${D}${sysconfdir}/ebpf-otlp/config.toml
    install -D -m 0644 ${S}/systemd/ebpf-otlp.service ${D}${systemd_system_unitdir}/ebpf-otlp.service
    install -D -m 0755 ${S}/busybox/ebpf-otlp ${D}${sysconfdir}/init.d/ebpf-otlp
}

FILES:${PN} += "${systemd_system_unitdir}"
CONFFILES:${PN} = "${sysconfdir}/ebpf-otlp/config.toml"
# It comes stripped.
INSANE_SKIP:${PN} += "already-stripped"
