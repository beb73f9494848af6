/*
 * uuids.h - the two applications' names, as in their manifest.json (compared by
 * tests/test_host_port.py). The trusted kernel vouches for them.
 */
#ifndef EDGED_UUIDS_H
#define EDGED_UUIDS_H

/* 9060cd35-56cd-4873-91a7-05f4d2b8ba49 */
#define EVAL_UUID \
    { 0x9060cd35, 0x56cd, 0x4873, {0x91, 0xa7, 0x05, 0xf4, 0xd2, 0xb8, 0xba, 0x49} }

/* 87084e91-0685-4c6b-a132-07b60757599c */
#define KEY_UUID \
    { 0x87084e91, 0x0685, 0x4c6b, {0xa1, 0x32, 0x07, 0xb6, 0x07, 0x57, 0x59, 0x9c} }

#endif
