/*
 * main.c - the key application com.edged.key: one port to the normal world, one
 * to the evaluation application alone. Everything else is in key/.
 */
#include "key.h"

#include <string.h>

#include <lib/tipc/tipc_srv.h>
#include <lk/err_ptr.h>
#include <uapi/err.h>

#include "crypto.h"
#include "service.h"
#include "uuids.h"

static struct key_app *app;
static struct key_link eval_link; /* of the only channel that KEY_EVAL_PORT admits */

/* Static: two messages would be a quarter of the stack. */
static struct service_request request;
static uint8_t answer[EDGED_MESSAGE_BYTES];

static const struct uuid eval_uuid = EVAL_UUID;
static const struct uuid key_uuid = KEY_UUID;

/* As RFC 9562 writes it: every number's most significant byte first. */
static void uuid_bytes(const struct uuid *u, uint8_t out[16]) {
    for (uint32_t i = 0; i < 4; i++)
        out[i] = (uint8_t)(u->time_low >> (24 - 8 * i));
    out[4] = (uint8_t)(u->time_mid >> 8);
    out[5] = (uint8_t)u->time_mid;
    out[6] = (uint8_t)(u->time_hi_and_version >> 8);
    out[7] = (uint8_t)u->time_hi_and_version;
    memcpy(out + 8, u->clock_seq_and_node, 8);
}

static int key_on_message(const struct tipc_port *port, handle_t chan, void *ctx) {
    (void)port;
    (void)ctx;
    int rc = service_receive(chan, 0, &request);
    if (rc < 0)
        return rc;

    size_t n;
    if (request.refusal != EDGED_OK)
        n = service_refuse(&request, answer);
    else
        n = key_message(app, request.bytes, request.size_bytes, answer);
    crypto_wipe(request.bytes, sizeof(request.bytes)); /* it may have brought a key */
    return service_answer(chan, answer, n);
}

/*
 * The trusted kernel vouches for the peer. The port's ACL says the same: this
 * check stays where somebody widens the ACL for another application.
 */
static int link_on_connect(const struct tipc_port *port, handle_t chan, const struct uuid *peer,
                           void **ctx_p) {
    uint8_t name[16];

    (void)port;
    (void)chan;
    if (memcmp(peer, &eval_uuid, sizeof(eval_uuid)) != 0)
        return ERR_ACCESS_DENIED;
    uuid_bytes(peer, name);
    key_link_open(&eval_link, name);
    *ctx_p = &eval_link;
    return NO_ERROR;
}

static int link_on_message(const struct tipc_port *port, handle_t chan, void *ctx) {
    (void)port;
    int rc = service_receive(chan, 0, &request);
    if (rc < 0)
        return rc;

    size_t n;
    if (request.refusal != EDGED_OK)
        n = service_refuse(&request, answer);
    else
        n = key_eval_message(app, ctx, request.bytes, request.size_bytes, answer);
    return service_answer(chan, answer, n);
}

/* Called for every end of a channel, ours or the peer's, some by both names. */
static void link_on_cleanup(void *ctx) {
    if (ctx != NULL)
        key_link_close(ctx);
}

static void link_on_disconnect(const struct tipc_port *port, handle_t chan, void *ctx) {
    (void)port;
    (void)chan;
    link_on_cleanup(ctx);
}

int main(void) {
    static const struct uuid *link_uuids[] = {&eval_uuid};
    static const struct tipc_port_acl key_acl = {.flags = IPC_PORT_ALLOW_NS_CONNECT};
    static const struct tipc_port_acl link_acl = {
        .flags = IPC_PORT_ALLOW_TA_CONNECT,
        .uuid_num = 1,
        .uuids = link_uuids,
    };
    static const struct tipc_port key_port = {
        .name = KEY_PORT,
        .msg_max_size = EDGED_MESSAGE_BYTES,
        .msg_queue_len = 1,
        .acl = &key_acl,
    };
    static const struct tipc_port link_port = {
        .name = KEY_EVAL_PORT,
        .msg_max_size = EDGED_MESSAGE_BYTES,
        .msg_queue_len = 1,
        .acl = &link_acl,
    };
    static const struct tipc_srv_ops key_ops = {.on_message = key_on_message};
    static const struct tipc_srv_ops link_ops = {
        .on_connect = link_on_connect,
        .on_message = link_on_message,
        .on_disconnect = link_on_disconnect,
        .on_channel_cleanup = link_on_cleanup,
    };

    uint8_t name[16];
    uuid_bytes(&key_uuid, name);
    app = key_create(name);
    if (app == NULL)
        return ERR_NO_MEMORY;
    struct tipc_hset *hset = tipc_hset_create();
    if (IS_ERR(hset))
        return (int)PTR_ERR(hset);
    int rc = tipc_add_service(hset, &key_port, 1, 1, &key_ops);
    if (rc == NO_ERROR)
        rc = tipc_add_service(hset, &link_port, 1, 1, &link_ops);
    if (rc < 0)
        return rc;
    return tipc_run_event_loop(hset);
}
