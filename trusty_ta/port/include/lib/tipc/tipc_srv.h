/* lib/tipc/tipc_srv.h - Trusty's server helper. Written from shared/TRUSTY.md. */
#ifndef EDGED_TIPC_SRV_H
#define EDGED_TIPC_SRV_H

#include <stdint.h>

#include <trusty_ipc.h>

/** struct tipc_port_acl - who may connect; mandatory. uuid_num 0 admits any. */
struct tipc_port_acl {
    uint32_t flags; /* IPC_PORT_ALLOW_* */
    uint32_t uuid_num;
    const struct uuid **uuids;
    const void *extra_data;
};

struct tipc_port {
    const char *name;
    uint32_t msg_max_size;
    uint32_t msg_queue_len;
    const struct tipc_port_acl *acl;
    const void *priv;
};

/**
 * struct tipc_srv_ops - what a service does
 * @on_message: mandatory; a negative answer makes the library close the channel
 * @on_channel_cleanup: frees what on_connect put into *ctx_p
 */
struct tipc_srv_ops {
    int (*on_connect)(const struct tipc_port *port, handle_t chan, const struct uuid *peer,
                      void **ctx_p);
    int (*on_message)(const struct tipc_port *port, handle_t chan, void *ctx);
    void (*on_disconnect)(const struct tipc_port *port, handle_t chan, void *ctx);
    void (*on_channel_cleanup)(void *ctx);
};

struct tipc_hset;

struct tipc_hset *tipc_hset_create(void); /* IS_ERR, PTR_ERR */
int tipc_add_service(struct tipc_hset *hset, const struct tipc_port *ports, uint32_t num_ports,
                     uint32_t max_chan_cnt, const struct tipc_srv_ops *ops);
int tipc_handle_event(struct tipc_hset *hset, uint32_t timeout_ms);
int tipc_run_event_loop(struct tipc_hset *hset);

#endif
