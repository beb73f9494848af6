/*
 * ipc.h - the table of handles that the emulated trusted kernel keeps for the
 * application. A handle is a Linux file descriptor that this table knows.
 */
#ifndef EDGED_HOST_IPC_H
#define EDGED_HOST_IPC_H

#include <trusty_ipc.h>

/* Descriptors stay below this (RLIMIT_NOFILE): Trusty's 64 handles and our own. */
#define DESCRIPTORS_MAX 128

enum handle_kind {
    HANDLE_NONE = 0,
    HANDLE_PORT,
    HANDLE_CHANNEL,
    HANDLE_CONNECTED, /* a channel whose READY event is still due */
    HANDLE_MEMREF
};

/* Maps the message buffers: they are the kernel's, not the application's image. */
int ipc_init(void);

/* NO_ERROR; ERR_NO_RESOURCES past 64 handles, and then fd is closed. */
int handle_add(int fd, enum handle_kind kind);
enum handle_kind handle_kind(handle_t handle);

#endif
