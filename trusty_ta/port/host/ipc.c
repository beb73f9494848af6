/*
 * ipc.c - trusty_ipc.h on sockets: handles, and messages that wait in the kernel
 * until put_msg() retires them.
 */
#include "ipc.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <uapi/err.h>

#include "crypto.h"
#include "host.h"
#include "socket.h"

/* Taken with get_msg() and not yet retired; our applications hold one at a time. */
#define MESSAGES_MAX 4u

struct message {
    bool used;
    handle_t chan;
    uint32_t id;
    size_t len;    /* as sent */
    size_t stored; /* at most one receive buffer */
    unsigned num_handles;
    int handles[SOCKET_HANDLES_MAX]; /* -1: taken by the application */
    uint8_t bytes[IPC_MAX_MSG_BYTES];
};

static struct message *messages;
static uint32_t last_id;
static uint8_t kinds[DESCRIPTORS_MAX];
static unsigned num_handles;

int __real_close(int fd);
int __wrap_close(int fd);

int ipc_init(void) {
    messages = mmap(NULL, MESSAGES_MAX * sizeof(*messages), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return messages == MAP_FAILED ? ERR_NO_MEMORY : NO_ERROR;
}

enum handle_kind handle_kind(handle_t handle) {
    if (handle < 0 || handle >= DESCRIPTORS_MAX)
        return HANDLE_NONE;
    return (enum handle_kind)kinds[handle];
}

int handle_add(int fd, enum handle_kind kind) {
    if (fd >= DESCRIPTORS_MAX || num_handles >= IPC_MAX_HANDLES) {
        __real_close(fd);
        return ERR_NO_RESOURCES;
    }
    kinds[fd] = (uint8_t)kind;
    num_handles++;
    return NO_ERROR;
}

static void message_retire(struct message *m) {
    for (unsigned i = 0; i < m->num_handles; i++)
        if (m->handles[i] >= 0)
            __real_close(m->handles[i]);
    crypto_wipe(m, sizeof(*m));
}

/* The linker sends every close() here, ours too: a handle leaves the table with it. */
int __wrap_close(int fd) {
    if (handle_kind(fd) != HANDLE_NONE) {
        kinds[fd] = HANDLE_NONE;
        num_handles--;
        for (unsigned i = 0; i < MESSAGES_MAX; i++)
            if (messages[i].used && messages[i].chan == fd)
                message_retire(&messages[i]);
    }
    return __real_close(fd);
}

static bool is_channel(handle_t handle) {
    return handle_kind(handle) == HANDLE_CHANNEL || handle_kind(handle) == HANDLE_CONNECTED;
}

/*
 * The peer learns our UUID from us: Linux has nobody to vouch for it, so on this
 * port it is a claim. It protects nothing; it lets the ACL's code be exercised.
 */
handle_t connect(const char *path, uint32_t flags) {
    char name[IPC_PORT_PATH_MAX + 4];
    struct uuid claim = host_application.uuid;
    struct iovec iov = {.iov_base = &claim, .iov_len = sizeof(claim)};

    if ((flags & IPC_CONNECT_WAIT_FOR_PORT) != 0)
        return ERR_INVALID_ARGS; /* none of our applications may wait for ever */
    if (strlen(path) >= IPC_PORT_PATH_MAX)
        return ERR_BAD_PATH;
    snprintf(name, sizeof(name), "%s.ta", path);
    int fd = socket_connect(name);
    if (fd < 0)
        return fd;
    ssize_t sent = socket_send(fd, &iov, 1);
    if (sent != (ssize_t)sizeof(claim)) {
        __real_close(fd);
        return ERR_CHANNEL_CLOSED;
    }
    int rc = handle_add(fd, HANDLE_CONNECTED);
    return rc < 0 ? rc : fd;
}

int wait(handle_t handle, uevent_t *event, uint32_t timeout_ms) {
    if (!is_channel(handle))
        return ERR_BAD_HANDLE;
    *event = (uevent_t){.handle = handle};
    if (handle_kind(handle) == HANDLE_CONNECTED) {
        kinds[handle] = HANDLE_CHANNEL;
        event->event = IPC_HANDLE_POLL_READY;
        return NO_ERROR;
    }
    int timeout = timeout_ms == INFINITE_TIME ? -1 : timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms;
    int bits = socket_wait(handle, timeout);
    if (bits < 0)
        return bits;
    if ((bits & SOCKET_MESSAGE) != 0)
        event->event |= IPC_HANDLE_POLL_MSG;
    if ((bits & SOCKET_HUP) != 0)
        event->event |= IPC_HANDLE_POLL_HUP;
    return NO_ERROR;
}

int get_msg(handle_t handle, ipc_msg_info_t *info) {
    struct message *m = messages;

    if (!is_channel(handle))
        return ERR_BAD_HANDLE;
    while (m < messages + MESSAGES_MAX && m->used)
        m++;
    if (m == messages + MESSAGES_MAX)
        return ERR_NO_RESOURCES;

    unsigned fds;
    ssize_t len = socket_receive(handle, m->bytes, sizeof(m->bytes), m->handles, &fds);
    if (len < 0)
        return (int)len;
    m->used = true;
    m->chan = handle;
    m->id = ++last_id;
    m->len = (size_t)len;
    m->stored = m->len < sizeof(m->bytes) ? m->len : sizeof(m->bytes);
    m->num_handles = fds < SOCKET_HANDLES_MAX ? fds : SOCKET_HANDLES_MAX;
    *info = (ipc_msg_info_t){.len = m->len, .id = m->id, .num_handles = fds};
    return NO_ERROR;
}

static struct message *message_find(handle_t handle, uint32_t id) {
    for (unsigned i = 0; i < MESSAGES_MAX; i++)
        if (messages[i].used && messages[i].chan == handle && messages[i].id == id)
            return &messages[i];
    return NULL;
}

ssize_t read_msg(handle_t handle, uint32_t msg_id, uint32_t offset, ipc_msg_t *msg) {
    struct message *m = message_find(handle, msg_id);
    size_t at = offset;

    if (m == NULL || offset > m->stored)
        return ERR_INVALID_ARGS;
    for (uint32_t i = 0; i < msg->num_iov && at < m->stored; i++) {
        size_t n = m->stored - at;
        if (n > msg->iov[i].iov_len)
            n = msg->iov[i].iov_len;
        memcpy(msg->iov[i].iov_base, m->bytes + at, n);
        at += n;
    }
    for (uint32_t i = 0; i < msg->num_handles && i < m->num_handles; i++) {
        int fd = m->handles[i];
        if (fd < 0)
            continue;
        m->handles[i] = -1;
        int rc = handle_add(fd, HANDLE_MEMREF);
        if (rc < 0)
            return rc;
        msg->handles[i] = fd;
    }
    return (ssize_t)(at - offset);
}

int put_msg(handle_t handle, uint32_t msg_id) {
    struct message *m = message_find(handle, msg_id);
    if (m == NULL)
        return ERR_INVALID_ARGS;
    message_retire(m);
    return NO_ERROR;
}

ssize_t send_msg(handle_t handle, ipc_msg_t *msg) {
    size_t size = 0;

    if (!is_channel(handle))
        return ERR_BAD_HANDLE;
    if (msg->num_handles != 0)
        return ERR_INVALID_ARGS; /* our applications lend no memory */
    for (uint32_t i = 0; i < msg->num_iov; i++)
        size += msg->iov[i].iov_len;
    if (size > IPC_MAX_MSG_BYTES)
        return ERR_TOO_BIG;
    return socket_send(handle, msg->iov, msg->num_iov);
}
