# Shared by eval/rules.mk and key/rules.mk. The including file has set LOCAL_DIR,
# EDGED_DIR (this project's trusty_ta folder, as Trusty's build names it) and
# EDGED_APP (eval or key).
#
# Choices of the board:
#   EDGED_PORT_WINDOW=0      Trusty without memrefs (NVIDIA L4T R32)
#   EDGED_PORT_COUNTER=0     Trusty without tamper-proof storage (NVIDIA L4T R32)
#   EDGED_STREAM_CHACHA20=1  processor without AES instructions, or not usable in user space
#   EDGED_OEMBOOT=1          image for boards that are fused to start signed images alone
#   EDGED_DBGSTAT=0..4       their debug ports (RFC 9711, dbgstat); 0: enabled
#   EDGED_RELEASE_KEY=N,N,.. bytes of the DER public key (RSA-2048) that signs releases; without it the two
#                            applications refuse each other on a port that is not emulated
# Not measured:
#   EDGED_SIGNATURE=HEX      that key's signature over this application's measurement (python -m edged.trust.release sign)

EDGED_SRCS := \
	$(sort $(wildcard $(EDGED_DIR)/lib/*.c)) \
	$(sort $(wildcard $(EDGED_DIR)/$(EDGED_APP)/*.c)) \
	$(EDGED_DIR)/port/trusty/platform.c \
	$(EDGED_DIR)/port/trusty/port.c \
	$(EDGED_DIR)/port/trusty/service.c \
	$(EDGED_DIR)/port/trusty/window.c \
	$(LOCAL_DIR)/main.c
ifeq ($(EDGED_APP),key)
EDGED_SRCS += $(EDGED_DIR)/port/trusty/counter.c
endif

# The measurement that platform.c reports: over the board's choices and the hash
# of every source, header and rule, in a fixed order, so that both parties can
# recompute it from the release.
EDGED_MEASURED := $(EDGED_SRCS) \
	$(sort $(wildcard $(addprefix $(EDGED_DIR)/,include/*.h lib/*.h $(EDGED_APP)/*.h port/trusty/*.h))) \
	$(LOCAL_DIR)/manifest.json $(LOCAL_DIR)/rules.mk $(EDGED_DIR)/port/trusty/rules-common.mk
EDGED_MEASUREMENT := $(firstword $(shell \
	(echo "$(EDGED_APP) $(EDGED_PORT_WINDOW) $(EDGED_PORT_COUNTER) $(EDGED_STREAM_CHACHA20) $(EDGED_OEMBOOT) $(EDGED_DBGSTAT) $(EDGED_RELEASE_KEY)"; \
	 for f in $(EDGED_MEASURED); do sha256sum < $$f; done) | sha256sum))

MANIFEST := $(LOCAL_DIR)/manifest.json

MODULE_SRCS += $(EDGED_SRCS)

MODULE_INCLUDES += \
	$(EDGED_DIR)/include \
	$(EDGED_DIR)/lib \
	$(EDGED_DIR)/$(EDGED_APP) \
	$(EDGED_DIR)/port/trusty

# One set of kernels: the portable one is exact everywhere.
MODULE_CFLAGS += -Wextra -Wconversion -DKERNEL_NAME=kernel_portable \
	-DEDGED_MEASUREMENT=\"$(EDGED_MEASUREMENT)\"
ifneq ($(EDGED_PORT_WINDOW),)
MODULE_CFLAGS += -DEDGED_PORT_WINDOW=$(EDGED_PORT_WINDOW)
endif
ifneq ($(EDGED_PORT_COUNTER),)
MODULE_CFLAGS += -DEDGED_PORT_COUNTER=$(EDGED_PORT_COUNTER)
endif
ifeq ($(EDGED_STREAM_CHACHA20),1)
MODULE_CFLAGS += -DEDGED_STREAM_CHACHA20
endif
ifneq ($(EDGED_OEMBOOT),)
MODULE_CFLAGS += -DEDGED_OEMBOOT=$(EDGED_OEMBOOT)
endif
ifneq ($(EDGED_DBGSTAT),)
MODULE_CFLAGS += -DEDGED_DBGSTAT=$(EDGED_DBGSTAT)
endif

ifneq ($(EDGED_RELEASE_KEY),)
MODULE_CFLAGS += -DEDGED_RELEASE_KEY=$(EDGED_RELEASE_KEY)
endif
ifneq ($(EDGED_SIGNATURE),)
MODULE_CFLAGS += -DEDGED_MEASUREMENT_SIGNATURE=\"$(EDGED_SIGNATURE)\"
endif

MODULE_LIBRARY_DEPS += \
	trusty/user/base/lib/libc-trusty \
	trusty/user/base/lib/hwkey \
	trusty/user/base/lib/rng \
	trusty/user/base/lib/tipc \
	external/boringssl
ifeq ($(EDGED_APP),key)
ifneq ($(EDGED_PORT_COUNTER),0)
MODULE_LIBRARY_DEPS += trusty/user/base/lib/storage
endif
endif
