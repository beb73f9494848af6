/*
 * trusty_ipc.h - Trusty's message passing. Written from shared/TRUSTY.md for
 * builds without the platform's tree: the cross-compile check, and the host port,
 * which implements it.
 */
#ifndef EDGED_TRUSTY_IPC_H
#define EDGED_TRUSTY_IPC_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <uapi/trusty_uuid.h>

/*
 * Trusty's connect() and accept() are not the C library's, and wait() neither.
 * Here their symbols get a prefix: on Linux they live beside the C library's.
 */
#define TRUSTY_SYMBOL(name) __asm__("trusty_" #name)

typedef int32_t handle_t;
#define INVALID_IPC_HANDLE ((handle_t)-1)

#define INFINITE_TIME UINT32_MAX

#define IPC_MAX_MSG_BYTES 4096u  /* of one receive buffer */
#define IPC_MAX_BUFFERS 32u      /* receive buffers of one channel */
#define IPC_MAX_MSG_HANDLES 8u   /* handles in one message */
#define IPC_MAX_HANDLES 64u      /* handles of one application */
#define IPC_PORT_PATH_MAX 64u    /* characters of a port's name */

#define IPC_PORT_ALLOW_TA_CONNECT 1u
#define IPC_PORT_ALLOW_NS_CONNECT 2u

#define IPC_CONNECT_WAIT_FOR_PORT 1u
#define IPC_CONNECT_ASYNC 2u

#define IPC_HANDLE_POLL_READY 1u
#define IPC_HANDLE_POLL_ERROR 2u
#define IPC_HANDLE_POLL_HUP 4u
#define IPC_HANDLE_POLL_MSG 8u
#define IPC_HANDLE_POLL_SEND_UNBLOCKED 0x10u

typedef struct ipc_msg {
    uint32_t num_iov;
    struct iovec *iov;
    uint32_t num_handles;
    handle_t *handles;
} ipc_msg_t;

typedef struct ipc_msg_info {
    size_t len;
    uint32_t id;
    uint32_t num_handles;
} ipc_msg_info_t;

typedef struct uevent {
    handle_t handle;
    uint32_t event;
    void *cookie;
} uevent_t;

handle_t connect(const char *path, uint32_t flags) TRUSTY_SYMBOL(connect);
int wait(handle_t handle, uevent_t *event, uint32_t timeout_ms) TRUSTY_SYMBOL(wait);
int close(handle_t handle);

int get_msg(handle_t handle, ipc_msg_info_t *info);
ssize_t read_msg(handle_t handle, uint32_t msg_id, uint32_t offset, ipc_msg_t *msg);
int put_msg(handle_t handle, uint32_t msg_id);
ssize_t send_msg(handle_t handle, ipc_msg_t *msg);

/*
 * Used by none of our applications, and so not implemented by the host port:
 * the tipc library below serves ports and events.
 */
handle_t port_create(const char *path, uint32_t num_recv_bufs, uint32_t recv_buf_size, uint32_t flags);
handle_t accept(handle_t port, uuid_t *peer) TRUSTY_SYMBOL(accept);
int set_cookie(handle_t handle, void *cookie);
handle_t handle_set_create(void);
int handle_set_ctrl(handle_t set, uint32_t cmd, uevent_t *event);
int wait_any(uevent_t *event, uint32_t timeout_ms);
handle_t memref_create(void *base, size_t size_bytes, uint32_t prot);

/*
 * Shared memory that came with a message: mmap() of sys/mman.h with flags 0 on
 * its handle, munmap(), close().
 */

#endif
