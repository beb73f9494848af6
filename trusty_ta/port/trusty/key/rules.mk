LOCAL_DIR := $(GET_LOCAL_DIR)

MODULE := $(LOCAL_DIR)

EDGED_APP := key
EDGED_DIR := $(patsubst %/port/trusty/key,%,$(LOCAL_DIR))

include $(EDGED_DIR)/port/trusty/rules-common.mk

include make/trusted_app.mk
