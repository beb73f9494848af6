LOCAL_DIR := $(GET_LOCAL_DIR)

MODULE := $(LOCAL_DIR)

EDGED_APP := eval
EDGED_DIR := $(patsubst %/port/trusty/eval,%,$(LOCAL_DIR))

include $(EDGED_DIR)/port/trusty/rules-common.mk

include make/trusted_app.mk
