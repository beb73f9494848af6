/*
 * counter.c - lib/port.h's monotonic store: one file of Trusty's tamper-proof storage, which keeps it in
 * RPMB. The service needs its proxy in the normal world: a session waits for it, so nothing is asked at start.
 */
#include "port.h"

#ifndef EDGED_PORT_COUNTER
#define EDGED_PORT_COUNTER 1
#endif

#if EDGED_PORT_COUNTER

#include <string.h>

#include <lib/storage/storage.h>
#include <uapi/err.h>

#define FILE_NAME "edged.counter"

static_assert(sizeof(struct port_counter) == 8 + 32, "is stored as it is");

static int read_file(storage_session_t session, struct port_counter *out) {
    file_handle_t file;
    int rc = storage_open_file(session, &file, FILE_NAME, 0, 0);

    memset(out, 0, sizeof(*out));
    if (rc < 0)
        return rc == ERR_NOT_FOUND ? NO_ERROR : rc;
    ssize_t n = storage_read(file, 0, out, sizeof(*out));
    storage_close_file(file);
    if (n < 0)
        return (int)n;
    return (size_t)n == sizeof(*out) ? NO_ERROR : ERR_IO;
}

static int write_file(storage_session_t session, const struct port_counter *to) {
    file_handle_t file;
    int rc = storage_open_file(session, &file, FILE_NAME, STORAGE_FILE_OPEN_CREATE, 0);

    if (rc < 0)
        return rc;
    ssize_t n = storage_write(file, 0, to, sizeof(*to), STORAGE_OP_COMPLETE);
    storage_close_file(file);
    if (n >= 0 && (size_t)n == sizeof(*to))
        return NO_ERROR;
    (void)storage_end_transaction(session, false);
    return n < 0 ? (int)n : ERR_IO;
}

int port_counter_read(struct port_counter *out) {
    storage_session_t session;
    int rc = storage_open_session(&session, STORAGE_CLIENT_TP_PORT);

    if (rc < 0)
        return rc;
    rc = read_file(session, out);
    storage_close_session(session);
    return rc;
}

int port_counter_raise(const struct port_counter *to) {
    struct port_counter at;
    storage_session_t session;
    int rc = storage_open_session(&session, STORAGE_CLIENT_TP_PORT);

    if (rc < 0)
        return rc;
    rc = read_file(session, &at);
    if (rc == NO_ERROR && memcmp(&at, to, sizeof(at)) != 0)
        rc = to->value > at.value ? write_file(session, to) : ERR_NOT_ALLOWED;
    storage_close_session(session);
    return rc;
}

#else

int port_counter_read(struct port_counter *out) {
    *out = (struct port_counter){0};
    return PORT_NO_COUNTER;
}

int port_counter_raise(const struct port_counter *to) {
    (void)to;
    return -1;
}

#endif
