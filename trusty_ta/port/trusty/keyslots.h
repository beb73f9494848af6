/*
 * keyslots.h - key slots of Trusty's hwkey service: what the flash station put into the EKB.
 */
#ifndef EDGED_KEYSLOTS_H
#define EDGED_KEYSLOTS_H

/* 32 bytes, readable by the key application alone: vouches for certificate requests. */
#define ENROL_KEYSLOT "com.edged.enrol"

/* 32 bytes, readable by the two applications alone: by it they know each other. */
#define LINK_KEYSLOT "com.edged.link"

#endif
