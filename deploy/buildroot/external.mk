include $(sort $(wildcard $(BR2_EXTERNAL_EBPF_OTLP_PATH)/package/*/*.mk))
