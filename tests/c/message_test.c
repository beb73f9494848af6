/*
 * message_test.c - both applications in one process, with their crypto, driven
 * message by message: every placement, transport, number of persons, U ahead and on
 * line; and the records' ways: kept, fetched, confirmed, withheld where a seal fails.
 * Every record of every test is compared with what the city expects, byte for byte
 * (city.h); what stands here is what a test asks beside that.
 *
 *   message_test VECTORS [FOLDER]    FOLDER: write each flow there, as a seed of fuzz_eval
 */
#include <string.h>

#include "ask.h"
#include "client.h"
#include "crypto_stub.h"
#include "fuzz_input.h"
#include "heap_stub.h"
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

static void end(void) {
    if (seed_file != NULL)
        CHECK(fclose(seed_file) == 0, "seed");
    seed_file = NULL;
    client_stop();
}

/* All kept records again, one by one; city.c compares them. */
static void fetch_all(void) {
    struct eval_record ask = {.emission = 0};
    uint32_t count = 0;

    for (struct eval_step step = {.record_bytes = 1}; step.record_bytes != 0; count += step.record_bytes != 0) {
        client_request(EVAL_RECORD, &ask, sizeof(ask), -1);
        DONE;
        memcpy(&step, client.answer + sizeof(struct edged_hdr), sizeof(step));
        ask.emission = step.emission + 1;
    }
    CHECK(count == ask_kept(), "%u of %u records", count, ask_kept());
}

/* Every piece of every kept record, and one more of each; city.c compares them. */
static void fetch_pieces(uint32_t each) {
    const struct eval *e = client.eval;

    for (uint32_t i = 0; i < EVAL_KEPT_MAX && e->kept[i].emission != 0; i++) {
        struct eval_record ask = {.emission = e->kept[i].emission};
        for (; ask.offset < e->kept[i].bytes; ask.offset += each) {
            client_request(EVAL_RECORD, &ask, sizeof(ask), -1);
            DONE;
        }
        ask.offset = (uint32_t)e->kept[i].bytes;
        client_request(EVAL_RECORD, &ask, sizeof(ask), -1);
        REFUSED(EDGED_ERR_OBJECT);
    }
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
    CHECK(client.observations == 4 && client.failures == 0 && ask_kept() == 2 + 4 * 2, "observations");
    fetch_all();
    ask_confirm(client.eval->emission - 1);
    DONE;
    CHECK(ask_kept() == 1, "one is not confirmed yet");
    ask_index(EVAL_SESSION_CLOSE, 0);
    DONE;
    client_request(EVAL_CLOSE, NULL, 0, -1);
    REFUSED(EDGED_ERR_ORDER);
    ask_confirm(client.eval->emission);
    client_request(EVAL_CLOSE, NULL, 0, -1);
    DONE;
    client_evaluate(); /* in the next epoch, with the same model */
    end();
}

/* A clip with one bit wrong is refused three times, then given up as `failed`. */
static void refuse(void) {
    client_start(FUZZ_SEED);
    client.again = true;
    for (uint32_t attempt = 0; attempt < EVAL_ATTEMPTS_MAX; attempt++) {
        client_spoil();
        CHECK(client.status == EDGED_ERR_VERIFICATION, "attempt %u", attempt);
        CHECK(client.failures == (attempt == EVAL_ATTEMPTS_MAX - 1), "the third refusal is the last");
    }
    CHECK(city.kinds[0] == EDGED_FAILED && city.kinds[1] == EDGED_FAILED, "both are told");
    ask_beacon(0, 1, city_now_ns()); /* it counts, in the heartbeat */
    DONE;
    client_evaluate();
    end();
}

/* Records that nobody fetched stop the clips; those under way keep their room. */
static void full(void) {
    const uint32_t place = 0;

    client_start(FUZZ_SEED);
    client_advance(20000, STATE_STEP); /* accepted: its two records have their room */
    while (ask_claim(place, EDGED_STATISTICS, EDGED_CLAIM_MAX), client.status == EDGED_OK) {
    }
    REFUSED(EDGED_ERR_FULL);
    CHECK(ask_kept() == EVAL_KEPT_MAX - 2, "%u are kept", ask_kept());
    ask_exercise(place, 0);
    REFUSED(EDGED_ERR_FULL);
    ask_beacon(place, 0, city_now_ns());
    REFUSED(EDGED_ERR_FULL);
    ask_agree(1);
    REFUSED(EDGED_ERR_ORDER); /* a clip is under way */
    while (client.observations == 0)
        client_advance(1, 0);
    CHECK(ask_kept() == EVAL_KEPT_MAX, "%u are kept", ask_kept());
    ask_agree(1);
    REFUSED(EDGED_ERR_FULL);
    struct eval_clip_open open = {.number = 9, .bytes = sizeof(struct edged_clip) + EVAL_TAG_BYTES};
    client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
    REFUSED(EDGED_ERR_FULL);
    fetch_all();
    ask_confirm(client.eval->emission + 1);
    REFUSED(EDGED_ERR_ARGUMENT);
    ask_confirm(4);
    DONE;
    CHECK(ask_kept() == EVAL_KEPT_MAX - 4, "the first four are gone");
    client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
    DONE; /* announced: its room is taken, too */
    ask_claim(place, EDGED_CAMERA, 0);
    DONE;
    ask_claim(place, EDGED_CAMERA, 0);
    REFUSED(EDGED_ERR_FULL);
    ask_index(EVAL_CLIP_ABORT, 0);
    ask_claim(place, EDGED_EVICTED, 1);
    DONE;
    client_evaluate(); /* an honest client confirms */
    end();
}

static uint32_t bad_seal; /* of a request */

static void fail_seal(bool inside) {
    seal_left = inside ? bad_seal : 0;
}

/* Where one recipient's record cannot be sealed nobody gets one, and nothing happened. */
static void half(void) {
    struct eval_stats stats;

    client_start(FUZZ_SEED);
    client.faults = true;
    client.around = fail_seal;
    bad_seal = 8; /* six keys cross the link first */
    ask_agree(0);
    REFUSED(EDGED_ERR_UNAVAILABLE);
    CHECK(ask_kept() == 0 && city_place(0) == EVAL_AGREEMENTS_MAX && client.eval->emission == 0, "nothing began");
    client.around = NULL;
    ask_agree(0);
    DONE;
    client.again = true;
    client.placement = EVAL_ENCLAVE;
    client_advance(20000, STATE_STEP);
    client.around = fail_seal;
    bad_seal = 2;
    ask_exercise(0, 0);
    REFUSED(EDGED_ERR_UNAVAILABLE);
    client_advance(100, STATE_READY);
    REFUSED(EDGED_ERR_UNAVAILABLE);
    ask_index(EVAL_CLIP_ABORT, 0);
    REFUSED(EDGED_ERR_UNAVAILABLE);
    ask_claim(0, EDGED_HEALTH, 5);
    REFUSED(EDGED_ERR_UNAVAILABLE);
    CHECK(ask_kept() == 2 && client.eval->emission == 2 && client.observations == 0, "nothing was said");
    client.around = NULL;
    client_evaluate();
    CHECK(ask_kept() == 4 && client.failures == 0, "the same clip, again");
    client_request(EVAL_STATS, NULL, 0, -1);
    memcpy(&stats, client.answer + sizeof(struct edged_hdr), sizeof(stats));
    CHECK(stats.records == 4 && stats.clips == 2, "%llu records", (unsigned long long)stats.records);
    ask_agree(CITY_SAME);
    DONE;
    ask_index(EVAL_SESSION_CLOSE, 0);
    DONE;
    client.around = fail_seal;
    for (bad_seal = 1; bad_seal <= 2; bad_seal++) {
        ask_succeed(0, 1);
        REFUSED(EDGED_ERR_UNAVAILABLE);
        CHECK(ask_kept() == 6, "it is in force still");
    }
    client.around = NULL;
    ask_exercise(0, 0);
    DONE;
    ask_succeed(0, 1);
    DONE;
    CHECK(ask_kept() == 10, "both records");
    end();
}

/* Skeletons: of the clip under way alone, whatever ends it; without memory for them it does not count. */
static void drawn(const char *folder) {
    const struct eval *e;

    client_start(FUZZ_SEED);
    city.drawn = true;
    if (folder != NULL)
        begin_seed(folder, "drawn");
    for (uint32_t round = 0; round < 4; round++) {
        client.window = round % 2 != 0;
        client.persons = (round + 1) % 3;
        client_evaluate();
        CHECK(client.eval->skeletons.xy == NULL, "forgotten with the verdict");
    }
    fetch_pieces(1000);
    client.persons = 2;
    e = client.eval;
    client_advance(20000, STATE_STEP);
    CHECK(e->skeletons.xy != NULL && e->skeletons.persons == 2, "kept");
    ask_index(EVAL_CLIP_ABORT, 0);
    DONE;
    CHECK(e->skeletons.xy == NULL && client.failures == 1, "forgotten with the clip");
    client.again = true;
    client_spoil();
    CHECK(client.status == EDGED_ERR_VERIFICATION && e->skeletons.xy == NULL, "forgotten with the invocation");
    client_advance(20000, STATE_STEP);
    CHECK(e->skeletons.xy != NULL, "kept again");
    eval_disconnect(client.eval);
    CHECK(e->skeletons.xy == NULL, "forgotten with the client");
    client_evaluate();
    client.again = false;
    end();
}

static void fail_heap(bool inside) {
    heap_left = inside;
}

static void no_memory(void) {
    client_start(FUZZ_SEED);
    city.drawn = true;
    client.persons = 2;
    client_advance(20000, STATE_CLIP);
    while (client.eval->clip_have != client.eval->clip.bytes)
        client_advance(1, 0);
    client.around = fail_heap;
    client_advance(1, 0);
    REFUSED(EDGED_ERR_MEMORY);
    client.around = NULL;
    const struct session *s = &client.eval->sessions[client.eval->clip.session];
    CHECK(s->accepted == 0 && !s->unfinished && client.eval->skeletons.xy == NULL, "it does not count");
    client_evaluate();
    CHECK(s->accepted == 1, "with memory it does");
    end();
}

/* An agreement ends only where there is room to say so. */
static void full_end(void) {
    client_start(FUZZ_SEED);
    ask_agree(0);
    ask_agree(CITY_SAME);
    while (ask_claim(1, EDGED_STATISTICS, 1), client.status == EDGED_OK) {
    }
    ask_confirm(1);
    ask_succeed(0, 1);
    REFUSED(EDGED_ERR_FULL);
    ask_confirm(2);
    ask_succeed(0, 1);
    DONE;
    CHECK(ask_kept() == EVAL_KEPT_MAX && city.kinds[0] == EDGED_SUCCESSION, "just so");
    fetch_all();
    end();
}

/* What is not of a clip: exercises, claims; a recipient of two agreements has one sequence. */
static void beside(const char *folder) {
    client_start(FUZZ_SEED);
    if (folder != NULL)
        begin_seed(folder, "beside");
    ask_agree(0);
    DONE;
    ask_agree(0);
    DONE;
    CHECK(ask_kept() == 2, "put again it says nothing new");
    ask_agree(1); /* its records are so large that one answer has room for one */
    DONE;
    CHECK(ask_kept() == 4, "four recipients");
    for (uint32_t rule = 0; rule < city_terms(0)->rules; rule++) {
        ask_exercise(0, rule);
        DONE;
        CHECK(city.kinds[0] == EDGED_ALERT && city.kinds[1] == (rule == 1 ? EDGED_OBSERVATION : EDGED_ALERT),
              "who may not see the rule is not told");
    }
    ask_exercise(0, city_terms(0)->rules);
    REFUSED(EDGED_ERR_ARGUMENT);
    ask_exercise(2, 0);
    REFUSED(EDGED_ERR_ARGUMENT);
    ask_exercise(1, 0);
    DONE;
    for (uint32_t kind = 0; kind <= EDGED_EVICTED + 1; kind++) {
        ask_claim(kind & 1, kind, 37 * kind);
        REFUSED(kind >= EDGED_CAMERA && kind <= EDGED_EVICTED ? EDGED_OK : EDGED_ERR_ARGUMENT);
    }
    ask_claim(0, EDGED_HEALTH, EDGED_CLAIM_MAX);
    DONE;
    ask_claim(0, EDGED_HEALTH, EDGED_CLAIM_MAX + 1);
    REFUSED(EDGED_ERR_ARGUMENT);
    ask_claim(3, EDGED_HEALTH, 1);
    REFUSED(EDGED_ERR_ARGUMENT);
    fetch_all();
    client_evaluate();
    ask_beacon(1, 1, city_now_ns());
    DONE;
    CHECK(city.heartbeat.cameras == 0, "no camera of this agreement");
    ask_confirm(client.eval->emission);
    DONE;
    end();
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
    full();
    half();
    full_end();
    drawn(folder);
    no_memory();
    beside(folder);
    return 0;
}
