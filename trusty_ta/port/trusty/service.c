#include "service.h"

#include <string.h>

#include <uapi/err.h>

static_assert(EDGED_MESSAGE_BYTES <= IPC_MAX_MSG_BYTES, "a message fits one receive buffer");

int service_receive(handle_t chan, uint32_t max_handles, struct service_request *r) {
    ipc_msg_info_t info;
    int rc = get_msg(chan, &info);
    if (rc < 0)
        return rc;

    r->handle = INVALID_IPC_HANDLE;
    r->refusal = EDGED_OK;
    if (info.len > sizeof(r->bytes))
        r->refusal = EDGED_ERR_LENGTH;
    else if (info.num_handles > max_handles)
        r->refusal = EDGED_ERR_ARGUMENT;
    r->size_bytes = info.len < sizeof(r->bytes) ? info.len : sizeof(r->bytes);

    struct iovec iov = {.iov_base = r->bytes, .iov_len = r->size_bytes};
    ipc_msg_t msg = {.num_iov = 1, .iov = &iov, .num_handles = 0, .handles = NULL};
    if (r->refusal == EDGED_OK && info.num_handles == 1) {
        msg.num_handles = 1;
        msg.handles = &r->handle;
    }
    ssize_t got = read_msg(chan, info.id, 0, &msg);
    /* Retires the message, and with it every handle that was not taken. */
    put_msg(chan, info.id);
    if (got >= 0 && (size_t)got == r->size_bytes)
        return NO_ERROR;

    if (r->handle != INVALID_IPC_HANDLE)
        close(r->handle);
    r->handle = INVALID_IPC_HANDLE;
    return got < 0 ? (int)got : ERR_IO;
}

size_t service_refuse(const struct service_request *r, uint8_t *answer) {
    struct edged_hdr hdr = {0};
    size_t known = r->size_bytes < sizeof(hdr) ? r->size_bytes : sizeof(hdr);

    memcpy(&hdr, r->bytes, known);
    hdr.version = EDGED_WIRE_VERSION;
    hdr.cmd |= 1u;
    hdr.len = 0;
    hdr.status = (uint32_t)r->refusal;
    hdr.reserved = 0;
    memcpy(answer, &hdr, sizeof(hdr));
    return sizeof(hdr);
}

int service_answer(handle_t chan, const uint8_t *answer, size_t size_bytes) {
    if (size_bytes == 0 || size_bytes > EDGED_MESSAGE_BYTES)
        return ERR_BAD_LEN;
    /* send_msg() only reads, but an iovec has no const. */
    struct iovec iov = {.iov_base = (void *)(uintptr_t)answer, .iov_len = size_bytes};
    ipc_msg_t msg = {.num_iov = 1, .iov = &iov, .num_handles = 0, .handles = NULL};
    ssize_t sent = send_msg(chan, &msg);
    if (sent < 0)
        return (int)sent;
    return (size_t)sent == size_bytes ? NO_ERROR : ERR_IO;
}
