#include "state.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "port.h"
#include "seal.h"

static const char LABEL[] = "edged key state v1";

#define COUNTER_AT offsetof(struct key_state, counter)
#define HEAD_BYTES offsetof(struct key_state, sealed)

static_assert(COUNTER_AT == sizeof(struct seal_head), "key_state");
static_assert(sizeof(struct slot) == 2 * 4 + 16 + 3 * 32 && sizeof(struct number) == 2 * 4 + 32 &&
                  sizeof(struct least) == 32 + 2 * 4 + 8,
              "key_state");
static_assert(HEAD_BYTES + sizeof(struct granted) + CRYPTO_TAG_BYTES == sizeof(struct key_state), "key_state");

/* All 0 where the platform has none. */
static enum edged_status read_store(struct state *s, struct port_counter *stored) {
    const int rc = port_counter_read(stored);

    if (rc < 0)
        return EDGED_ERR_UNAVAILABLE;
    s->no_store = rc == PORT_NO_COUNTER;
    if (s->no_store)
        *stored = (struct port_counter){0};
    return EDGED_OK;
}

static enum edged_status commit(const struct state *s, uint64_t counter, const uint8_t name[32]) {
    struct port_counter to = {.value = counter};

    memcpy(to.name, name, sizeof(to.name));
    return s->no_store || port_counter_raise(&to) == 0 ? EDGED_OK : EDGED_ERR_UNAVAILABLE;
}

/* Begin without a state where there never was one: else an old grant could be taken once more. */
static enum edged_status know(struct state *s, const struct identity *i) {
    struct port_counter stored;
    enum edged_status status;

    if (!identity_is_open(i))
        return EDGED_ERR_ORDER;
    if (s->known)
        return EDGED_OK;
    status = read_store(s, &stored);
    if (status != EDGED_OK)
        return status;
    if (stored.value != 0 && !s->fresh)
        return EDGED_ERR_ORDER;
    if (identity_thumbprint(i, s->granted.device) != 0)
        return EDGED_ERR_UNAVAILABLE;
    memcpy(s->granted.name, stored.name, sizeof(stored.name));
    s->counter = stored.value;
    s->unnamed = s->fresh;
    s->known = true;
    return EDGED_OK;
}

struct number *granted_number(struct granted *g, const uint8_t verifier[32], uint32_t slot) {
    for (uint32_t i = 0; i < KEY_NUMBERS; i++) {
        struct number *at = &g->numbers[i];
        if (at->number != 0 && at->slot == slot && memcmp(at->verifier, verifier, sizeof(at->verifier)) == 0)
            return at;
    }
    return NULL;
}

bool granted_count(struct granted *g, const uint8_t verifier[32], uint32_t slot, uint32_t number) {
    struct number *at = granted_number(g, verifier, slot);

    for (uint32_t i = 0; i < KEY_NUMBERS && at == NULL; i++)
        if (g->numbers[i].number == 0)
            at = &g->numbers[i];
    if (at == NULL)
        return false;
    at->number = number;
    at->slot = slot;
    memcpy(at->verifier, verifier, sizeof(at->verifier));
    return true;
}

struct least *granted_least(struct granted *g, const uint8_t verifier[32]) {
    for (uint32_t i = 0; i < KEY_FLOORS; i++)
        if (memcmp(g->least[i].verifier, verifier, sizeof(g->least[i].verifier)) == 0)
            return &g->least[i];
    return NULL;
}

void state_release(struct granted *draft) {
    if (draft != NULL)
        crypto_wipe(draft, sizeof(*draft));
    free(draft);
}

enum edged_status state_draft(struct state *s, const struct identity *i, struct granted **draft) {
    const enum edged_status status = know(s, i);

    *draft = NULL;
    if (status != EDGED_OK)
        return status;
    if (s->pending)
        return EDGED_ERR_ORDER;
    *draft = malloc(sizeof(**draft));
    if (*draft == NULL)
        return EDGED_ERR_MEMORY;
    **draft = s->granted;
    return EDGED_OK;
}

static int seal(uint64_t counter, const struct granted *g, uint8_t *sealed) {
    store_le64(sealed + COUNTER_AT, counter);
    return seal_close(LABEL, KEY_STATE_FORM, sealed, HEAD_BYTES, g, sizeof(*g));
}

enum edged_status state_change(struct state *s, struct granted *draft, uint8_t *sealed) {
    memcpy(draft->previous, draft->name, sizeof(draft->previous));
    if (port_random(draft->name, sizeof(draft->name)) != 0 || seal(s->counter + 1, draft, sealed) != 0)
        return EDGED_ERR_UNAVAILABLE;
    s->granted = *draft;
    s->counter++;
    s->unnamed = false;
    s->pending = true;
    return EDGED_OK;
}

enum edged_status state_answer(struct state *s, const struct identity *i, uint8_t *sealed) {
    struct granted *draft = NULL;
    enum edged_status status = know(s, i);

    if (status == EDGED_OK && !s->unnamed)
        return seal(s->counter, &s->granted, sealed) == 0 ? EDGED_OK : EDGED_ERR_UNAVAILABLE;
    if (status == EDGED_OK)
        status = state_draft(s, i, &draft);
    if (status == EDGED_OK)
        status = state_change(s, draft, sealed);
    state_release(draft);
    return status;
}

/* It is ours and whole; whether it is the last one, the store decides. */
static enum edged_status judge(struct state *s, const struct identity *i, const struct granted *g,
                               uint64_t counter) {
    struct port_counter stored;
    uint8_t device[32];
    enum edged_status status = read_store(s, &stored);

    if (status != EDGED_OK)
        return status;
    if (identity_thumbprint(i, device) != 0)
        return EDGED_ERR_UNAVAILABLE;
    if (memcmp(device, g->device, sizeof(device)) != 0)
        return EDGED_ERR_STATE;
    if (s->no_store || (counter == stored.value && memcmp(g->name, stored.name, sizeof(stored.name)) == 0))
        return EDGED_OK;
    if (counter == 0 || counter - 1 != stored.value || memcmp(g->previous, stored.name, sizeof(stored.name)) != 0)
        return EDGED_ERR_STATE;
    return commit(s, counter, g->name); /* its file is durable: it was read from there */
}

enum edged_status state_restore(struct state *s, const struct identity *i, const uint8_t *sealed) {
    const uint64_t counter = load_le64(sealed + COUNTER_AT);

    if (!identity_is_open(i) || s->known || s->fresh)
        return EDGED_ERR_ORDER;
    struct granted *g = malloc(sizeof(*g));
    if (g == NULL)
        return EDGED_ERR_MEMORY;
    enum edged_status status = seal_open(LABEL, KEY_STATE_FORM, sealed, HEAD_BYTES, g, sizeof(*g));
    if (status == EDGED_OK)
        status = judge(s, i, g, counter);
    if (status == EDGED_OK) {
        s->granted = *g;
        s->counter = counter;
        s->known = true;
    }
    state_release(g);
    return status;
}

enum edged_status state_commit(struct state *s, uint64_t counter) {
    enum edged_status status = EDGED_OK;

    if (!s->known)
        return EDGED_ERR_ORDER;
    if (counter != s->counter)
        return EDGED_ERR_ARGUMENT;
    if (s->pending)
        status = commit(s, counter, s->granted.name);
    if (status == EDGED_OK)
        s->pending = false;
    return status;
}
