/*
 * socket.h - Linux's Unix SEQPACKET sockets, kept apart because their connect()
 * and accept() and Trusty's share names. Paths are relative to DIR, where the
 * process works: a Unix socket's path has no room for long ones.
 * Functions answer with ERR_* of uapi/err.h; none ever waits for a peer.
 */
#ifndef EDGED_HOST_SOCKET_H
#define EDGED_HOST_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#define SOCKET_HANDLES_MAX 8u

/* One process per application and DIR, until it dies, however it dies. */
int socket_lock(const char *application);

/* A listening socket; a dead process's is replaced. */
int socket_listen(const char *path, mode_t mode);

/* Buffers no more than send_bytes of messages which the peer does not read. */
int socket_accept(int listener, size_t send_bytes);
int socket_connect(const char *path);

/**
 * socket_receive - take one message, whole or cut to size_bytes
 * @fds, @num_fds: what came with it, close-on-exec; more than
 *                 SOCKET_HANDLES_MAX are dropped by the kernel, yet counted as one
 * Returns the message's true size; ERR_NO_MSG; ERR_CHANNEL_CLOSED.
 */
ssize_t socket_receive(int fd, void *data, size_t size_bytes, int fds[SOCKET_HANDLES_MAX],
                       unsigned *num_fds);

/* Bytes sent, all of them; ERR_NOT_ENOUGH_BUFFER where the peer does not read. */
ssize_t socket_send(int fd, struct iovec *iov, size_t num_iov);

#define SOCKET_MESSAGE 1
#define SOCKET_HUP 2

/* SOCKET_* bits, or ERR_TIMED_OUT. timeout_ms < 0: for ever. */
int socket_wait(int fd, int timeout_ms);

#endif
