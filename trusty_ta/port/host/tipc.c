/*
 * tipc.c - Trusty's tipc library on sockets: services, their ACL and limits, and
 * the event loop. A port NAME is the socket NAME.ns where the normal world may
 * connect, and NAME.ta where an application may, which sends its UUID first.
 */
#include <lib/tipc/tipc.h>
#include <lib/tipc/tipc_srv.h>

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <lk/err_ptr.h>
#include <uapi/err.h>

#include "host.h"
#include "ipc.h"
#include "socket.h"

#define SERVICES_MAX 4u
#define LISTENERS_MAX 8u
#define CHANNELS_MAX (IPC_MAX_HANDLES - LISTENERS_MAX)
/* Connections that have not sent their UUID; one more, and the oldest goes. */
#define PENDING_MAX 4u

struct service {
    const struct tipc_srv_ops *ops;
    uint32_t max_chan_cnt; /* 0: no limit */
    uint32_t channels;
};

struct listener {
    int fd;
    bool ta;
    struct service *service;
    const struct tipc_port *port;
};

struct channel {
    bool used;
    bool pending; /* its UUID is due; the service does not know it yet */
    int fd;
    uint64_t number; /* order of arrival */
    struct listener *from;
    void *ctx;
};

struct tipc_hset {
    bool started;
    uint32_t num_services, num_listeners;
    uint64_t arrivals;
    struct service services[SERVICES_MAX];
    struct listener listeners[LISTENERS_MAX];
    struct channel channels[CHANNELS_MAX];
};

static struct tipc_hset the_hset;

struct tipc_hset *tipc_hset_create(void) {
    return &the_hset; /* an application has one */
}

static int add_listener(struct tipc_hset *hset, struct service *service, const struct tipc_port *port,
                        bool ta) {
    char path[IPC_PORT_PATH_MAX + 4];

    if (hset->num_listeners == LISTENERS_MAX)
        return ERR_NO_RESOURCES;
    snprintf(path, sizeof(path), "%s.%s", port->name, ta ? "ta" : "ns");
    /* The group may hold the normal world's client; applications are ours. */
    int fd = socket_listen(path, ta ? 0600 : 0660);
    if (fd < 0) {
        host_log("cannot listen", path);
        return fd;
    }
    int rc = handle_add(fd, HANDLE_PORT);
    if (rc < 0)
        return rc;
    hset->listeners[hset->num_listeners++] =
        (struct listener){.fd = fd, .ta = ta, .service = service, .port = port};
    return NO_ERROR;
}

int tipc_add_service(struct tipc_hset *hset, const struct tipc_port *ports, uint32_t num_ports,
                     uint32_t max_chan_cnt, const struct tipc_srv_ops *ops) {
    size_t largest = 0;

    if (ops == NULL || ops->on_message == NULL || hset->started)
        return ERR_INVALID_ARGS;
    if (hset->num_services == SERVICES_MAX)
        return ERR_NO_RESOURCES;
    struct service *service = &hset->services[hset->num_services++];
    *service = (struct service){.ops = ops, .max_chan_cnt = max_chan_cnt};

    for (uint32_t i = 0; i < num_ports; i++) {
        const struct tipc_port *p = &ports[i];
        int rc = NO_ERROR;
        if (p->acl == NULL || strlen(p->name) >= IPC_PORT_PATH_MAX || p->msg_max_size == 0 ||
            p->msg_max_size > IPC_MAX_MSG_BYTES || p->msg_queue_len == 0 ||
            p->msg_queue_len > IPC_MAX_BUFFERS)
            return ERR_INVALID_ARGS;
        if ((p->acl->flags & IPC_PORT_ALLOW_NS_CONNECT) != 0)
            rc = add_listener(hset, service, p, false);
        if (rc == NO_ERROR && (p->acl->flags & IPC_PORT_ALLOW_TA_CONNECT) != 0)
            rc = add_listener(hset, service, p, true);
        if (rc < 0)
            return rc;
        size_t buffers = (size_t)p->msg_queue_len * p->msg_max_size;
        if (buffers > largest)
            largest = buffers;
    }
    platform_add_channels(largest * (max_chan_cnt != 0 ? max_chan_cnt : CHANNELS_MAX));
    return NO_ERROR;
}

static void channel_close(struct channel *c, bool peer_is_gone) {
    const struct tipc_srv_ops *ops = c->from->service->ops;

    if (!c->pending) {
        c->from->service->channels--;
        if (peer_is_gone && ops->on_disconnect != NULL)
            ops->on_disconnect(c->from->port, c->fd, c->ctx);
        if (ops->on_channel_cleanup != NULL && c->ctx != NULL)
            ops->on_channel_cleanup(c->ctx);
    }
    close(c->fd);
    *c = (struct channel){.used = false};
}

static bool acl_admits(const struct tipc_port_acl *acl, const struct uuid *peer) {
    for (uint32_t i = 0; i < acl->uuid_num; i++)
        if (memcmp(acl->uuids[i], peer, sizeof(*peer)) == 0)
            return true;
    return acl->uuid_num == 0;
}

/* A connection whose peer is known becomes a channel of the service, or ends. */
static void channel_admit(struct channel *c, const struct uuid *peer) {
    struct service *s = c->from->service;

    c->pending = true; /* until admitted, closing it is no business of the service */
    if (!acl_admits(c->from->port->acl, peer)) {
        host_log("refused: UUID", c->from->port->name);
        channel_close(c, false);
    } else if (s->max_chan_cnt != 0 && s->channels >= s->max_chan_cnt) {
        host_log("refused: channels at their limit", c->from->port->name);
        channel_close(c, false);
    } else if (s->ops->on_connect != NULL &&
               s->ops->on_connect(c->from->port, c->fd, peer, &c->ctx) < 0) {
        host_log("refused by the service", c->from->port->name);
        channel_close(c, false);
    } else {
        c->pending = false;
        s->channels++;
    }
}

static void receive_uuid(struct channel *c) {
    struct uuid peer;
    int fds[SOCKET_HANDLES_MAX];
    unsigned num_fds;

    ssize_t got = socket_receive(c->fd, &peer, sizeof(peer), fds, &num_fds);
    for (unsigned i = 0; i < SOCKET_HANDLES_MAX; i++)
        if (got >= 0 && fds[i] >= 0)
            close(fds[i]);
    if (got == (ssize_t)sizeof(peer) && num_fds == 0)
        channel_admit(c, &peer);
    else
        channel_close(c, false);
}

static void make_room_for_pending(struct tipc_hset *hset) {
    struct channel *oldest = NULL;
    uint32_t count = 0;

    for (struct channel *c = hset->channels; c < hset->channels + CHANNELS_MAX; c++)
        if (c->used && c->pending) {
            count++;
            if (oldest == NULL || c->number < oldest->number)
                oldest = c;
        }
    if (count >= PENDING_MAX)
        channel_close(oldest, false);
}

static void accept_from(struct tipc_hset *hset, struct listener *l) {
    static const struct uuid normal_world; /* has no UUID: all zero */
    struct channel *c = hset->channels;

    int fd = socket_accept(l->fd, (size_t)l->port->msg_queue_len * l->port->msg_max_size);
    if (fd < 0)
        return;
    if (l->ta)
        make_room_for_pending(hset);
    while (c < hset->channels + CHANNELS_MAX && c->used)
        c++;
    if (c == hset->channels + CHANNELS_MAX) {
        close(fd);
        return;
    }
    if (handle_add(fd, HANDLE_CHANNEL) < 0)
        return;
    *c = (struct channel){
        .used = true, .pending = true, .fd = fd, .number = hset->arrivals++, .from = l};
    if (!l->ta)
        channel_admit(c, &normal_world);
}

static void serve(struct channel *c, short events) {
    if ((events & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL)) != 0)
        channel_close(c, true);
    else if (c->pending)
        receive_uuid(c);
    else if (c->from->service->ops->on_message(c->from->port, c->fd, c->ctx) < 0)
        channel_close(c, false);
}

/* Every port listens and the application is made: from here on, no more files. */
static int start(struct tipc_hset *hset) {
    static const char ready[] = "ready\n";

    if (sandbox_enter() < 0) {
        host_log("cannot enter the system call filter", NULL);
        return ERR_GENERIC;
    }
    hset->started = true;
    /* Nobody may be reading; that is no reason not to serve. */
    ssize_t written = write(STDOUT_FILENO, ready, sizeof(ready) - 1);
    (void)written;
    return NO_ERROR;
}

int tipc_handle_event(struct tipc_hset *hset, uint32_t timeout_ms) {
    static struct pollfd p[CHANNELS_MAX + LISTENERS_MAX];

    if (!hset->started && start(hset) < 0)
        return ERR_GENERIC;
    for (uint32_t i = 0; i < CHANNELS_MAX; i++)
        p[i] = (struct pollfd){.fd = hset->channels[i].used ? hset->channels[i].fd : -1,
                               .events = POLLIN | POLLRDHUP};
    for (uint32_t i = 0; i < hset->num_listeners; i++)
        p[CHANNELS_MAX + i] = (struct pollfd){.fd = hset->listeners[i].fd, .events = POLLIN};

    int n = poll(p, CHANNELS_MAX + hset->num_listeners,
                 timeout_ms == INFINITE_TIME ? -1 : (int)(timeout_ms & INT32_MAX));
    if (n < 0)
        return errno == EINTR ? NO_ERROR : ERR_IO;
    if (n == 0)
        return ERR_TIMED_OUT;
    /* Channels first: one that ended makes room for the client that comes back. */
    for (uint32_t i = 0; i < CHANNELS_MAX; i++)
        if (p[i].fd >= 0 && p[i].revents != 0)
            serve(&hset->channels[i], p[i].revents);
    for (uint32_t i = 0; i < hset->num_listeners; i++)
        if (p[CHANNELS_MAX + i].revents != 0)
            accept_from(hset, &hset->listeners[i]);
    return NO_ERROR;
}

int tipc_run_event_loop(struct tipc_hset *hset) {
    int rc;

    do
        rc = tipc_handle_event(hset, INFINITE_TIME);
    while (rc == NO_ERROR);
    return rc;
}

int tipc_connect(handle_t *handle, const char *port) {
    handle_t chan = connect(port, 0);
    if (chan < 0)
        return chan;
    *handle = chan;
    return NO_ERROR;
}

int tipc_send2(handle_t chan, const void *hdr, size_t hdr_bytes, const void *payload,
               size_t payload_bytes) {
    struct iovec iov[2] = {
        {.iov_base = (void *)(uintptr_t)hdr, .iov_len = hdr_bytes},
        {.iov_base = (void *)(uintptr_t)payload, .iov_len = payload_bytes},
    };
    ipc_msg_t msg = {.num_iov = payload_bytes != 0 ? 2 : 1, .iov = iov};
    return (int)send_msg(chan, &msg);
}

int tipc_send1(handle_t chan, const void *buf, size_t size_bytes) {
    return tipc_send2(chan, buf, size_bytes, NULL, 0);
}

int tipc_recv2(handle_t chan, size_t min_bytes, void *buf1, size_t size1_bytes, void *buf2,
               size_t size2_bytes) {
    struct iovec iov[2] = {
        {.iov_base = buf1, .iov_len = size1_bytes},
        {.iov_base = buf2, .iov_len = size2_bytes},
    };
    ipc_msg_t msg = {.num_iov = size2_bytes != 0 ? 2 : 1, .iov = iov};
    ipc_msg_info_t info;

    int rc = get_msg(chan, &info);
    if (rc < 0)
        return rc;
    if (info.len < min_bytes || info.len > size1_bytes + size2_bytes)
        rc = ERR_BAD_LEN;
    else
        rc = (int)read_msg(chan, info.id, 0, &msg);
    put_msg(chan, info.id);
    return rc;
}

int tipc_recv1(handle_t chan, size_t min_bytes, void *buf, size_t size_bytes) {
    return tipc_recv2(chan, min_bytes, buf, size_bytes, NULL, 0);
}
