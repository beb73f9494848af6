/*
 * main.c - the evaluation application com.edged.eval: its port to the normal
 * world. Everything else is in eval/.
 */
#include "eval.h"

#include <stdbool.h>

#include <lib/tipc/tipc_srv.h>
#include <lk/err_ptr.h>
#include <uapi/err.h>

#include "service.h"

static struct eval *app;
static bool client_known;

/* Static: two messages would be an eighth of the stack. */
static struct service_request request;
static uint8_t answer[EDGED_MESSAGE_BYTES];

static int on_connect(const struct tipc_port *port, handle_t chan, const struct uuid *peer,
                      void **ctx_p) {
    (void)port;
    (void)chan;
    (void)peer; /* the normal world has none */
    client_known = true;
    *ctx_p = &client_known;
    return NO_ERROR;
}

static int on_message(const struct tipc_port *port, handle_t chan, void *ctx) {
    (void)port;
    (void)ctx;
    int rc = service_receive(chan, 1, &request);
    if (rc < 0)
        return rc;

    size_t n;
    if (request.refusal != EDGED_OK)
        n = service_refuse(&request, answer);
    else
        n = eval_message(app, request.bytes, request.size_bytes, request.handle, answer);
    return service_answer(chan, answer, n);
}

/* Called for every end of a channel, ours or the client's, some by both names. */
static void on_channel_cleanup(void *ctx) {
    (void)ctx;
    if (client_known)
        eval_disconnect(app);
    client_known = false;
}

static void on_disconnect(const struct tipc_port *port, handle_t chan, void *ctx) {
    (void)port;
    (void)chan;
    on_channel_cleanup(ctx);
}

int main(void) {
    static const struct tipc_port_acl acl = {.flags = IPC_PORT_ALLOW_NS_CONNECT};
    static const struct tipc_port port = {
        .name = EVAL_PORT,
        .msg_max_size = EDGED_MESSAGE_BYTES,
        .msg_queue_len = EDGED_QUEUE,
        .acl = &acl,
    };
    static const struct tipc_srv_ops ops = {
        .on_connect = on_connect,
        .on_message = on_message,
        .on_disconnect = on_disconnect,
        .on_channel_cleanup = on_channel_cleanup,
    };

    app = eval_create();
    if (app == NULL)
        return ERR_NO_MEMORY;
    struct tipc_hset *hset = tipc_hset_create();
    if (IS_ERR(hset))
        return (int)PTR_ERR(hset);
    /* One client: the model, its session and its window are one owner's. */
    int rc = tipc_add_service(hset, &port, 1, 1, &ops);
    if (rc < 0)
        return rc;
    return tipc_run_event_loop(hset);
}
