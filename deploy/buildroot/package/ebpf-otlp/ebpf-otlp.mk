################################################################################
#
# ebpf-otlp
#
################################################################################

EBPF_OTLP_VERSION = 0.1.0
EBPF_OTLP_FLAVOUR = $(if $(BR2_PACKAGE_EBPF_OTLP_FULL),full,minimal)
EBPF_OTLP_ARCH = $(if $(BR2_x86_64),x86_64,$(if $(BR2_i386),i686,$(if $(BR2_aarch64),aarch64,$(if $(BR2_RISCV_64),riscv64,armv7))))
EBPF_OTLP_SITE = $(call qstrip,$(BR2_PACKAGE_EBPF_OTLP_ARCHIVES))
EBPF_OTLP_SOURCE = ebpf-otlp-$(EBPF_OTLP_VERSION)-$(EBPF_OTLP_ARCH)-$(EBPF_OTLP_FLAVOUR).tar.gz
# No ebpf-otlp.hash lies beside this file, so that Buildroot compares nothing and warns: it is made of a release, by
# `sed -n 's/^/sha256  /; /tar\.gz$/p' SHA256SUMS` beside the archives, and of its three licence files (sha256sum).
EBPF_OTLP_LICENSE = MIT or Apache-2.0
EBPF_OTLP_LICENSE_FILES = LICENSE-MIT LICENSE-APACHE THIRD-PARTY

define EBPF_OTLP_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/ebpf-otlp $(TARGET_DIR)/usr/bin/ebpf-otlp
	$(INSTALL) -D -m 0644 $(@D)/config.toml $(TARGET_DIR)/etc/ebpf-otlp/config.toml
endef

define EBPF_OTLP_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(@D)/systemd/ebpf-otlp.service $(TARGET_DIR)/usr/lib/systemd/system/ebpf-otlp.service
endef

define EBPF_OTLP_INSTALL_INIT_OPENRC
	$(INSTALL) -D -m 0755 $(@D)/openrc/ebpf-otlp $(TARGET_DIR)/etc/init.d/ebpf-otlp
	mkdir -p $(TARGET_DIR)/etc/runlevels/default
	ln -sf /etc/init.d/ebpf-otlp $(TARGET_DIR)/etc/runlevels/default/ebpf-otlp
endef

define EBPF_OTLP_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(@D)/busybox/ebpf-otlp $(TARGET_DIR)/etc/init.d/S99ebpf-otlp
endef

# BPF_EVENTS, which has no prompt, follows. DEBUG_INFO_BTF needs a tool of the host: see Config.in.
define EBPF_OTLP_LINUX_CONFIG_FIXUPS
	$(call KCONFIG_ENABLE_OPT,CONFIG_BPF_SYSCALL)
	$(call KCONFIG_ENABLE_OPT,CONFIG_BPF_JIT)
	$(call KCONFIG_ENABLE_OPT,CONFIG_PERF_EVENTS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_CGROUPS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_CGROUP_BPF)
	$(call KCONFIG_ENABLE_OPT,CONFIG_FTRACE)
	$(call KCONFIG_ENABLE_OPT,CONFIG_KPROBES)
	$(call KCONFIG_ENABLE_OPT,CONFIG_KPROBE_EVENTS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_UPROBE_EVENTS)
endef

$(eval $(generic-package))
