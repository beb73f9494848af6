/*
 * eval.c - the evaluation application's life.
 */
#include "eval.h"

#include <stdlib.h>

#include "bytes.h"
#include "dispatch.h"
#include "port.h"

struct eval *eval_create(void) {
    struct eval *e = calloc(1, sizeof(*e));

    if (e == NULL)
        return NULL;
    e->kernel = kernel_select();
    e->state = STATE_EMPTY;
    if (crypto_init() != 0 || (e->prg = prg_new()) == NULL || port_device_key("edged state v1", e->state_key) != 0 ||
        epoch_begin(e) != EDGED_OK) {
        eval_destroy(e);
        return NULL;
    }
    return e;
}

size_t eval_message(struct eval *e, const uint8_t *request, size_t size_bytes, int handle, uint8_t *answer) {
    return dispatch(e, request, size_bytes, handle, answer);
}

void eval_disconnect(struct eval *e) {
    load_drop(e);
    memset(&e->flow, 0, sizeof(e->flow));
    if (e->window != NULL)
        port_window_unmap(e->window, e->window_bytes);
    e->window = NULL;
    e->window_bytes = 0;
}

void eval_destroy(struct eval *e) {
    eval_disconnect(e);
    prg_free(e->prg);
    crypto_wipe(e, sizeof(*e));
    free(e);
}
