/*
 * message_test.c - both applications in one process, with their crypto, driven
 * message by message: every placement, transport, number of persons, U ahead and on
 * line; the client compares each observation with NumPy's scores (client.c).
 *
 *   message_test VECTORS [FOLDER]    FOLDER: write each flow there, as a seed of fuzz_eval
 */
#include <string.h>

#include "client.h"
#include "fuzz_input.h"
#include "vector.h"

static FILE *seed_file;

/* A message as fuzz_eval reads it: FUZZ_RAW, size, handle, bytes. */
static void record(const uint8_t *request, size_t size_bytes, int handle) {
    const uint8_t head[4] = {FUZZ_RAW, (uint8_t)size_bytes, (uint8_t)(size_bytes >> 8), handle >= 0};
    CHECK(fwrite(head, 1, sizeof(head), seed_file) == sizeof(head), "seed");
    CHECK(fwrite(request, 1, size_bytes, seed_file) == size_bytes, "seed");
}

static void begin_seed(const char *folder, const char *name) {
    char path[512];
    const uint8_t head[2] = {FUZZ_START_EMPTY, 0};

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    seed_file = fopen(path, "wb");
    CHECK(seed_file != NULL && fwrite(head, 1, sizeof(head), seed_file) == sizeof(head), "%s", path);
    client.record = record;
}

static void run(uint32_t placement, bool window, bool ahead, const char *folder) {
    client_start(FUZZ_SEED);
    client.placement = placement;
    client.window = window;
    client.ahead = ahead;
    if (folder != NULL) {
        char name[64];
        snprintf(name, sizeof(name), "flow-%u-%s-%s", placement, window ? "window" : "message",
                 ahead ? "ahead" : "online");
        begin_seed(folder, name);
    }
    for (uint32_t round = 0; round < 4; round++) { /* of the same session */
        client.persons = (round + 1) % 3;
        client_evaluate();
    }
    CHECK(client.observations == 4 && client.failures == 0, "observations");
    const struct eval_index session = {.index = 0};
    client_request(EVAL_RECORD, &session, sizeof(session), -1);
    CHECK(client.status == EDGED_OK, "the last record again");
    client_request(EVAL_SESSION_CLOSE, &session, sizeof(session), -1);
    CHECK(client.status == EDGED_OK, "close");
    if (seed_file != NULL)
        CHECK(fclose(seed_file) == 0, "seed");
    seed_file = NULL;
    client.record = NULL;
    client_stop();
}

/* A clip with one bit wrong is refused three times, then given up as `failed`. */
static void refuse(void) {
    client_start(FUZZ_SEED);
    client.again = true;
    for (uint32_t attempt = 0; attempt < EVAL_ATTEMPTS_MAX; attempt++) {
        client_advance(20000, STATE_STEP);
        while (client.eval->state == STATE_STEP) {
            const int handle = client_due();
            struct edged_hdr h;
            memcpy(&h, client.request, sizeof(h));
            if (h.cmd == EVAL_STEP_WRITE && client.eval->step == 1)
                client.request[client.request_bytes - 1] ^= 0x80;
            client_send(client.request, client.request_bytes, handle);
        }
        CHECK(client.status == EDGED_ERR_VERIFICATION, "attempt %u", attempt);
        CHECK(client.failures == (attempt == EVAL_ATTEMPTS_MAX - 1), "the third refusal is the last");
    }
    client_evaluate();
    client_stop();
}

int main(int argc, char **argv) {
    const char *folder = argc > 2 ? argv[2] : NULL;

    CHECK(argc >= 2, "usage: message_test VECTORS [FOLDER]");
    vector_open(argv[1]);
    client_init();
    for (uint32_t placement = EVAL_MASKED; placement <= EVAL_ENCLAVE; placement++)
        for (uint32_t window = 0; window < 2; window++)
            for (uint32_t ahead = 0; ahead <= (placement != EVAL_ENCLAVE); ahead++)
                run(placement, window != 0, ahead != 0, folder);
    refuse();
    return 0;
}
