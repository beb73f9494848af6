#include "socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <uapi/err.h>

#include "host.h"

#define SOCKET_TYPE (SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK)
#define BACKLOG 16

static int error_of_errno(void) {
    switch (errno) {
    case EAGAIN: /* and EWOULDBLOCK */
        return ERR_NOT_READY;
    case EACCES:
    case EPERM:
    case EROFS:
        return ERR_ACCESS_DENIED;
    case ENOENT:
    case ECONNREFUSED:
        return ERR_NOT_FOUND;
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
        return ERR_CHANNEL_CLOSED;
    case EMSGSIZE:
        return ERR_TOO_BIG;
    default:
        return ERR_IO;
    }
}

static int address_of(const char *path, struct sockaddr_un *address) {
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(address->sun_path))
        return ERR_BAD_PATH;
    memcpy(address->sun_path, path, strlen(path));
    return NO_ERROR;
}

int socket_lock(const char *application) {
    char path[96];

    snprintf(path, sizeof(path), "%s.lock", application);
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_of_errno();
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd; /* held until this process is gone */
    close(fd);
    return ERR_ALREADY_EXISTS;
}

int socket_connect(const char *path) {
    struct sockaddr_un address;
    int rc = address_of(path, &address);
    if (rc < 0)
        return rc;
    int fd = socket(AF_UNIX, SOCKET_TYPE, 0);
    if (fd < 0)
        return ERR_NO_RESOURCES;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    rc = error_of_errno(); /* ERR_NOT_READY: its backlog is full */
    close(fd);
    return rc;
}

/*
 * What lies at the path is ours to remove only if it is a socket on which nobody
 * listens. (Another process of this application was ruled out by the lock.)
 */
static int remove_stale(const char *path) {
    struct stat st;

    if (lstat(path, &st) != 0)
        return errno == ENOENT ? NO_ERROR : error_of_errno();
    if (!S_ISSOCK(st.st_mode)) {
        host_log("in the way, and no socket", path);
        return ERR_ALREADY_EXISTS;
    }
    int fd = socket_connect(path);
    if (fd >= 0)
        close(fd);
    if (fd != ERR_NOT_FOUND) {
        host_log("in use", path);
        return fd == ERR_ACCESS_DENIED ? fd : ERR_ALREADY_EXISTS;
    }
    host_log("replaces a dead process's socket", path);
    return unlink(path) == 0 ? NO_ERROR : error_of_errno();
}

int socket_listen(const char *path, mode_t mode) {
    struct sockaddr_un address;
    int rc = address_of(path, &address);
    if (rc == NO_ERROR)
        rc = remove_stale(path);
    if (rc < 0)
        return rc;
    int fd = socket(AF_UNIX, SOCKET_TYPE, 0);
    if (fd < 0)
        return ERR_NO_RESOURCES;
    mode_t before = umask(~mode & 0777);
    rc = bind(fd, (struct sockaddr *)&address, sizeof(address));
    if (rc == 0)
        rc = listen(fd, BACKLOG);
    if (rc != 0)
        rc = errno == EADDRINUSE ? ERR_ALREADY_EXISTS : error_of_errno();
    umask(before);
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

int socket_accept(int listener, size_t send_bytes) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return error_of_errno();
    /*
     * The kernel doubles the figure and charges each message about twice its
     * size, so this is the number of full messages that a Trusty channel queues.
     */
    int size = (int)send_bytes;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) == 0)
        return fd;
    close(fd);
    return ERR_NO_RESOURCES;
}

/* Collects every descriptor, of whatever kind; the caller closes what is no use. */
static unsigned take_fds(struct msghdr *m, int fds[SOCKET_HANDLES_MAX]) {
    unsigned n = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (n < SOCKET_HANDLES_MAX)
                fds[n++] = fd;
            else
                close(fd);
        }
    }
    if ((m->msg_flags & MSG_CTRUNC) != 0)
        n++;
    return n;
}

ssize_t socket_receive(int fd, void *data, size_t size_bytes, int fds[SOCKET_HANDLES_MAX],
                       unsigned *num_fds) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(SOCKET_HANDLES_MAX * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = data, .iov_len = size_bytes};
    struct msghdr m = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof(control.bytes),
    };

    *num_fds = 0;
    for (unsigned i = 0; i < SOCKET_HANDLES_MAX; i++)
        fds[i] = -1;
    ssize_t got = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_TRUNC);
    if (got < 0)
        return errno == EAGAIN ? ERR_NO_MSG : error_of_errno();
    *num_fds = take_fds(&m, fds);
    /* 0 bytes: an empty message, or the end. */
    if (got == 0 && *num_fds == 0 && socket_wait(fd, 0) == SOCKET_HUP)
        return ERR_CHANNEL_CLOSED;
    return got;
}

ssize_t socket_send(int fd, struct iovec *iov, size_t num_iov) {
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = num_iov};
    ssize_t sent = sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0)
        return sent;
    return errno == EAGAIN ? ERR_NOT_ENOUGH_BUFFER : error_of_errno();
}

static bool has_message(int fd) {
    struct msghdr m = {0};
    return recvmsg(fd, &m, MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC) > 0;
}

int socket_wait(int fd, int timeout_ms) {
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};
    int n;

    do
        n = poll(&p, 1, timeout_ms);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        return ERR_TIMED_OUT;
    if (n < 0 || (p.revents & (POLLERR | POLLNVAL)) != 0)
        return SOCKET_HUP;
    if ((p.revents & (POLLHUP | POLLRDHUP)) == 0)
        return SOCKET_MESSAGE;
    /* The end makes a socket readable too: what was sent before it still counts. */
    return has_message(fd) ? SOCKET_MESSAGE | SOCKET_HUP : SOCKET_HUP;
}
