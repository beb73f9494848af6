/*
 * message_test.c - both applications in one process, with their crypto, driven
 * message by message: every placement, transport, number of persons, U ahead and on
 * line; then what agreements, the city and time decide. Every record of every test is
 * compared with what the city expects, byte for byte (city.h); what stands here is what
 * a test asks beside that.
 *
 *   message_test VECTORS [FOLDER]    FOLDER: write each flow there, as a seed of fuzz_eval
 */
#include <string.h>

#include "client.h"
#include "crypto_stub.h"
#include "fuzz_input.h"
#include "port_stub.h"
#include "vector.h"

#define REFUSED(STATUS) CHECK(client.status == (STATUS), "status %u", client.status)
#define DONE REFUSED(EDGED_OK)

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

static uint32_t kept(void) {
    struct eval_info info;

    client_request(EVAL_INFO, NULL, 0, -1);
    memcpy(&info, client.answer + sizeof(struct edged_hdr), sizeof(info));
    return info.kept;
}

static void index_request(uint16_t cmd, uint32_t index) {
    const struct eval_index ask = {.index = index};
    client_request(cmd, &ask, sizeof(ask), -1);
}

/* All kept records again, one by one; city.c compares them. */
static void fetch_all(void) {
    struct eval_emission ask = {.emission = 0};
    uint32_t count = 0;

    for (struct eval_step step = {.record_bytes = 1}; step.record_bytes != 0; count += step.record_bytes != 0) {
        client_request(EVAL_RECORD, &ask, sizeof(ask), -1);
        DONE;
        memcpy(&step, client.answer + sizeof(struct edged_hdr), sizeof(step));
        ask.emission = step.emission + 1;
    }
    CHECK(count == kept(), "%u of %u records", count, kept());
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
    CHECK(client.observations == 4 && client.failures == 0 && kept() == 2 + 4 * 2, "observations");
    fetch_all();
    client_confirm(client.eval->emission - 1);
    DONE;
    CHECK(kept() == 1, "one is not confirmed yet");
    index_request(EVAL_SESSION_CLOSE, 0);
    DONE;
    client_request(EVAL_CLOSE, NULL, 0, -1);
    REFUSED(EDGED_ERR_ORDER);
    client_confirm(client.eval->emission);
    client_request(EVAL_CLOSE, NULL, 0, -1);
    DONE;
    client_evaluate(); /* in the next epoch, with the same model */
    end();
}

/* To the last step of a clip, of which one bit is then wrong. */
static void spoil(void) {
    client_advance(20000, STATE_STEP);
    while (client.eval->state == STATE_STEP) {
        const int handle = client_due();
        struct edged_hdr h;
        memcpy(&h, client.request, sizeof(h));
        if (h.cmd == EVAL_STEP_WRITE && client.eval->step == 1)
            client.request[client.request_bytes - 1] ^= 0x80;
        client_send(client.request, client.request_bytes, handle);
    }
}

/* A clip with one bit wrong is refused three times, then given up as `failed`. */
static void refuse(void) {
    client_start(FUZZ_SEED);
    client.again = true;
    for (uint32_t attempt = 0; attempt < EVAL_ATTEMPTS_MAX; attempt++) {
        spoil();
        CHECK(client.status == EDGED_ERR_VERIFICATION, "attempt %u", attempt);
        CHECK(client.failures == (attempt == EVAL_ATTEMPTS_MAX - 1), "the third refusal is the last");
    }
    CHECK(city.kinds[0] == EDGED_FAILED && city.kinds[1] == EDGED_FAILED, "both are told");
    client_beacon(0, 1, city_now_ns()); /* it counts, in the heartbeat */
    DONE;
    client_evaluate();
    end();
}

/* Of the day on which the stub's clock began, or the next. */
static uint64_t at_ns(uint32_t hour, int32_t more_s) {
    const uint64_t day_s = 86400, midnight_s = CITY_BEGIN_S / day_s * day_s + day_s;

    return (midnight_s + hour * 3600u) * CITY_SECOND + (uint64_t)(more_s * (int64_t)CITY_SECOND);
}

static void pass_s(uint64_t seconds) {
    stub.uptime_ns += seconds * CITY_SECOND;
}

/* A clip of so many persons: what became of the first rule and the second; each recipient's kind. */
static void clip(uint32_t persons, uint32_t first, uint32_t second, uint32_t kind_of_all, uint32_t kind_of_some) {
    client.persons = persons;
    client_evaluate();
    CHECK(city.messages[0] == first && city.messages[1] == second, "%u persons: %u %u", persons, city.messages[0],
          city.messages[1]);
    CHECK(city.kinds[0] == kind_of_all && city.kinds[1] == kind_of_some, "%u persons: kinds %u %u", persons,
          city.kinds[0], city.kinds[1]);
}

/*
 * The first rule holds for one person and cools down for 60 s, the second for two, with
 * no cool-down. The second recipient sees the first rule alone.
 */
static void alert(void) {
    enum { NONE, ALERT, UPDATE, CANCEL };

    client_start(FUZZ_SEED);
    client.placement = EVAL_ENCLAVE;
    client_agree(0);
    client_beacon(0, 0, at_ns(12, 0)); /* by day the third one does not hold */
    clip(0, NONE, NONE, EDGED_OBSERVATION, EDGED_OBSERVATION);
    clip(1, ALERT, NONE, EDGED_ALERT, EDGED_ALERT);
    clip(1, UPDATE, NONE, EDGED_ALERT, EDGED_ALERT);
    pass_s(30);
    clip(2, NONE, ALERT, EDGED_ALERT, EDGED_OBSERVATION);
    clip(2, NONE, UPDATE, EDGED_ALERT, EDGED_OBSERVATION);
    clip(1, UPDATE, CANCEL, EDGED_ALERT, EDGED_ALERT); /* within its cool-down it goes on */
    pass_s(59);
    clip(0, NONE, NONE, EDGED_OBSERVATION, EDGED_OBSERVATION);
    pass_s(1);
    clip(0, CANCEL, NONE, EDGED_ALERT, EDGED_ALERT);
    clip(0, NONE, NONE, EDGED_OBSERVATION, EDGED_OBSERVATION);
    clip(1, ALERT, NONE, EDGED_ALERT, EDGED_ALERT);
    clip(0, NONE, NONE, EDGED_OBSERVATION, EDGED_OBSERVATION);
    pass_s(3600); /* clips that never came end no event, but another one is no update of it */
    clip(1, ALERT, NONE, EDGED_ALERT, EDGED_ALERT);
    pass_s(3600); /* it holds still, for all that is known */
    clip(1, UPDATE, NONE, EDGED_ALERT, EDGED_ALERT);
    /* New keys are no new event. */
    struct eval_session_open ask = {.agreement = city_place(0)};
    memcpy(ask.camera, client.eval->sessions[0].camera, sizeof(ask.camera));
    client_request(EVAL_SESSION_OPEN, &ask, sizeof(ask), -1);
    DONE;
    client_beacon(0, 1, city_now_ns()); /* nor are the camera's clips forgotten */
    DONE;
    clip(1, UPDATE, NONE, EDGED_ALERT, EDGED_ALERT);
    client.again = false;
    client.placement = EVAL_MASKED; /* a failed clip ends nothing */
    eval_disconnect(client.eval);
    spoil();
    index_request(EVAL_CLIP_ABORT, 0);
    DONE;
    clip(1, UPDATE, NONE, EDGED_ALERT, EDGED_ALERT);
    end();
}

/* The third rule holds at night alone, the second by day, by the city's clock. */
static void schedule(void) {
    client_start(FUZZ_SEED);
    client.placement = EVAL_ENCLAVE;
    client.persons = 0;
    client_evaluate();
    CHECK(city.messages[2] == EDGED_MESSAGE_ALERT, "no beacon told the time: it holds");
    client.persons = 2;
    client_evaluate();
    CHECK(city.messages[1] == EDGED_MESSAGE_ALERT, "and that of the day, too");
    client.persons = 0;
    client_beacon(0, 0, at_ns(6, -2));
    DONE;
    client_evaluate();
    CHECK(city.messages[2] == EDGED_MESSAGE_UPDATE, "before six, again within its cool-down");
    pass_s(3);
    client_evaluate();
    CHECK(city.messages[2] == EDGED_MESSAGE_NONE, "after six it holds no longer, and cools down");
    pass_s(600);
    client_evaluate();
    CHECK(city.messages[2] == EDGED_MESSAGE_CANCEL, "cooled down");
    client_beacon(0, 0, at_ns(22, -1));
    client_evaluate();
    CHECK(city.messages[2] == EDGED_MESSAGE_NONE, "before ten");
    pass_s(1);
    client_evaluate();
    CHECK(city.messages[2] == EDGED_MESSAGE_ALERT, "at ten");
    client.persons = 2;
    client_evaluate();
    CHECK(city.messages[1] == EDGED_MESSAGE_NONE, "two by night");
    end();
}

/* The vector file's key of one slot into another, under the id of a third. */
static void put_slot(uint32_t from, uint32_t to, uint32_t id) {
    struct {
        struct edged_hdr h;
        struct key_slot_put p;
    } m = {.h = {.version = EDGED_WIRE_VERSION, .cmd = KEY_SLOT_PUT, .len = sizeof(m.p)}};
    uint8_t answer[EDGED_MESSAGE_BYTES];
    char name[16];

    snprintf(name, sizeof(name), "slot/%u", id);
    memcpy(&m.p, vector_get(name, NULL), sizeof(m.p));
    const struct key_slot_put named = m.p;
    snprintf(name, sizeof(name), "slot/%u", from);
    memcpy(&m.p, vector_get(name, NULL), sizeof(m.p));
    m.p.slot = to;
    memcpy(m.p.key_id, named.key_id, sizeof(m.p.key_id));
    CHECK(key_message(client.key, (const uint8_t *)&m, sizeof(m), answer) == sizeof(m.h), "slot");
}

/* What an agreement does not cover, or not now, is not evaluated: not even again. */
static void limits(void) {
    struct eval_session_open ask = {.camera = "another camera"};

    client_start(FUZZ_SEED);
    client.placement = EVAL_INPUTS;
    client_evaluate();
    put_slot(4, 1, 1);
    client_request(EVAL_SESSION_OPEN, &ask, sizeof(ask), -1);
    REFUSED(EDGED_ERR_KEY); /* the slot holds another city's key since */
    put_slot(1, 1, 4);
    client_request(EVAL_SESSION_OPEN, &ask, sizeof(ask), -1);
    REFUSED(EDGED_ERR_KEY);
    put_slot(1, 1, 1);
    for (uint32_t deal = 1; deal <= CITY_EXPIRED; deal++) {
        client_agree(deal);
        DONE;
    }
    client_agree(CITY_DEALS - 1);
    REFUSED(EDGED_ERR_MEMORY);
    for (uint32_t deal = 1; deal <= CITY_EXPIRED; deal++) {
        ask.agreement = city_place(deal);
        client_request(EVAL_SESSION_OPEN, &ask, sizeof(ask), -1);
        DONE;
    }
    struct eval_clip_open open = {.session = 1, .number = 1, .bytes = sizeof(struct edged_clip) + EVAL_TAG_BYTES};
    client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
    REFUSED(EDGED_ERR_PLACEMENT); /* permitted by the owner, not by this city */
    open.session = 2;
    client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
    REFUSED(EDGED_ERR_AGREEMENT); /* of a later version */
    open.session = 3;
    client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
    DONE; /* nobody told the time */
    index_request(EVAL_CLIP_ABORT, 3);
    DONE;
    client_beacon(city_place(CITY_EXPIRED), 1, city_now_ns());
    DONE;
    client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
    REFUSED(EDGED_ERR_AGREEMENT); /* it is over */
    end();
}

/* A clip that was taken comes again under the placement, model and time that the agreement covers, or not at all. */
static void again(void) {
    client_start(FUZZ_SEED);
    client.again = true;
    spoil();
    REFUSED(EDGED_ERR_VERIFICATION);
    pass_s(7201);
    client_advance(1, 0);
    CHECK(client.status == EDGED_OK, "the honest client sends a beacon first");
    pass_s(7201);
    struct eval_clip_open open = {
        .number = client.eval->sessions[0].number, .bytes = client.eval->clip.bytes};
    client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
    REFUSED(EDGED_ERR_LOCKED);
    client_beacon(0, 1, city_now_ns());
    client.eval->agreements[0].placements = 1 << EVAL_ENCLAVE; /* as if another one had been loaded since */
    client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
    REFUSED(EDGED_ERR_PLACEMENT);
    client.eval->agreements[0].placements = 7;
    for (uint32_t forged = 2; forged-- != 0;) { /* the same, signed by who is not the model's owner; then its own */
        eval_disconnect(client.eval);
        client.forged = forged != 0;
        client_advance(20000, STATE_READY);
        client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
        REFUSED(forged ? EDGED_ERR_AGREEMENT : EDGED_OK);
    }
    client_evaluate();
    CHECK(client.failures == 0, "then it is evaluated");
    end();
}

/* The other city permits two clips an hour. */
static void rate(void) {
    struct eval_session_open ask = {.camera = "another camera"};

    client_start(FUZZ_SEED);
    client_advance(20000, STATE_READY);
    client_agree(1);
    ask.agreement = city_place(1);
    client_request(EVAL_SESSION_OPEN, &ask, sizeof(ask), -1);
    struct eval_clip_open open = {.session = client.eval->sessions[1].open,
                                  .bytes = sizeof(struct edged_clip) + EVAL_TAG_BYTES};
    for (uint32_t i = 0; i < 5; i++) {
        open.number = i + 1;
        client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
        if (i == 2) {
            REFUSED(EDGED_ERR_RATE);
            pass_s(1799);
            client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
            REFUSED(EDGED_ERR_RATE);
            pass_s(1);
            client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
        }
        if (i == 4) {
            pass_s(3600); /* two intervals: what is saved up is one hour's at most */
            client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
        }
        if (i == 3) {
            REFUSED(EDGED_ERR_RATE);
            continue;
        }
        DONE;
        client_advance(2, STATE_READY);
        DONE;
    }
    CHECK(client.observations == 4, "%u clips of nobody", client.observations);
    end();
}

/* Records that nobody fetched stop the clips; those under way keep their room. */
static void full(void) {
    const uint32_t place = 0;

    client_start(FUZZ_SEED);
    client_advance(20000, STATE_STEP); /* accepted: its two records have their room */
    while (client_claim(place, EDGED_STATISTICS, EDGED_CLAIM_MAX), client.status == EDGED_OK) {
    }
    REFUSED(EDGED_ERR_FULL);
    CHECK(kept() == EVAL_KEPT_MAX - 2, "%u are kept", kept());
    client_exercise(place, 0);
    REFUSED(EDGED_ERR_FULL);
    client_beacon(place, 0, city_now_ns());
    REFUSED(EDGED_ERR_FULL);
    client_agree(1);
    REFUSED(EDGED_ERR_ORDER); /* a clip is under way */
    while (client.observations == 0)
        client_advance(1, 0);
    CHECK(kept() == EVAL_KEPT_MAX, "%u are kept", kept());
    client_agree(1);
    REFUSED(EDGED_ERR_FULL);
    struct eval_clip_open open = {.number = 9, .bytes = sizeof(struct edged_clip) + EVAL_TAG_BYTES};
    client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
    REFUSED(EDGED_ERR_FULL);
    fetch_all();
    client_confirm(client.eval->emission + 1);
    REFUSED(EDGED_ERR_ARGUMENT);
    client_confirm(4);
    DONE;
    CHECK(kept() == EVAL_KEPT_MAX - 4, "the first four are gone");
    client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
    DONE; /* announced: its room is taken, too */
    client_claim(place, EDGED_CAMERA, 0);
    DONE;
    client_claim(place, EDGED_CAMERA, 0);
    REFUSED(EDGED_ERR_FULL);
    index_request(EVAL_CLIP_ABORT, 0);
    client_claim(place, EDGED_EVICTED, 1);
    DONE;
    client_evaluate(); /* an honest client confirms */
    end();
}

/* Beacons are answered to who sent them, tell the time, and keep the agreement from being locked. */
static void beacon(void) {
    client_start(FUZZ_SEED);
    client_evaluate();
    const uint64_t first_ns = city_now_ns();
    client_beacon(0, 1, first_ns);
    DONE;
    CHECK(city.heartbeat.time_ns == first_ns && city.heartbeat.cameras == 1 && city.heartbeat.counter == 1,
          "heartbeat");
    client_beacon(0, 1, first_ns);
    REFUSED(EDGED_ERR_ARGUMENT); /* replayed */
    client_beacon(0, 1, first_ns - 1);
    REFUSED(EDGED_ERR_ARGUMENT);
    client_beacon(0, 1, (uint64_t)1 << 63);
    REFUSED(EDGED_ERR_ARGUMENT);
    for (size_t bit = 0; bit < 8 * sizeof(struct edged_beacon); bit += 7) {
        struct eval_beacon wrong = city_beacon(0, 1, first_ns + 1);
        ((uint8_t *)&wrong)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        client_request(EVAL_BEACON, &wrong, sizeof(wrong), -1);
        CHECK(client.status == EDGED_ERR_KEY || client.status == EDGED_ERR_RESERVED, "bit %zu: %u", bit,
              client.status);
    }
    struct eval_beacon swapped = city_beacon(0, 0, first_ns + 1);
    memcpy(swapped.beacon.rcpt, city_terms(0)->recipient[1].rcpt, 16);
    client_request(EVAL_BEACON, &swapped, sizeof(swapped), -1);
    REFUSED(EDGED_ERR_KEY); /* one recipient's key does not speak for another */
    pass_s(3000);
    client_beacon(0, 0, first_ns + 1); /* another recipient's, held back: the time does not go back */
    DONE;
    client_evaluate();
    pass_s(7201);
    client_beacon(0, 0, first_ns + 2); /* older than the limit: answered, but it unlocks nothing */
    DONE;
    struct eval_clip_open open = {.number = 9, .bytes = sizeof(struct edged_clip) + EVAL_TAG_BYTES};
    client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
    REFUSED(EDGED_ERR_LOCKED);
    client_beacon(0, 0, city_now_ns());
    DONE;
    client_evaluate();
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
    client_agree(0);
    REFUSED(EDGED_ERR_UNAVAILABLE);
    CHECK(kept() == 0 && city_place(0) == EVAL_AGREEMENTS_MAX && client.eval->emission == 0, "nothing began");
    client.around = NULL;
    client_agree(0);
    DONE;
    client.again = true;
    client.placement = EVAL_ENCLAVE;
    client_advance(20000, STATE_STEP);
    client.around = fail_seal;
    bad_seal = 2;
    client_exercise(0, 0);
    REFUSED(EDGED_ERR_UNAVAILABLE);
    client_advance(100, STATE_READY);
    REFUSED(EDGED_ERR_UNAVAILABLE);
    index_request(EVAL_CLIP_ABORT, 0);
    REFUSED(EDGED_ERR_UNAVAILABLE);
    client_claim(0, EDGED_HEALTH, 5);
    REFUSED(EDGED_ERR_UNAVAILABLE);
    CHECK(kept() == 2 && client.eval->emission == 2 && client.observations == 0, "nothing was said");
    client.around = NULL;
    client_evaluate();
    CHECK(kept() == 4 && client.failures == 0, "the same clip, again");
    client_request(EVAL_STATS, NULL, 0, -1);
    memcpy(&stats, client.answer + sizeof(struct edged_hdr), sizeof(stats));
    CHECK(stats.records == 4 && stats.clips == 2, "%llu records", (unsigned long long)stats.records);
    end();
}

/* What is not of a clip: exercises, claims; a recipient of two agreements has one sequence. */
static void beside(const char *folder) {
    client_start(FUZZ_SEED);
    if (folder != NULL)
        begin_seed(folder, "beside");
    client_agree(0);
    DONE;
    client_agree(0);
    DONE;
    CHECK(kept() == 2, "put again it says nothing new");
    client_agree(1); /* its records are so large that one answer has room for one */
    DONE;
    CHECK(kept() == 4, "four recipients");
    for (uint32_t rule = 0; rule < city_terms(0)->rules; rule++) {
        client_exercise(0, rule);
        DONE;
        CHECK(city.kinds[0] == EDGED_ALERT && city.kinds[1] == (rule == 1 ? EDGED_OBSERVATION : EDGED_ALERT),
              "who may not see the rule is not told");
    }
    client_exercise(0, city_terms(0)->rules);
    REFUSED(EDGED_ERR_ARGUMENT);
    client_exercise(2, 0);
    REFUSED(EDGED_ERR_ARGUMENT);
    client_exercise(1, 0);
    DONE;
    for (uint32_t kind = 0; kind <= EDGED_EVICTED + 1; kind++) {
        client_claim(kind & 1, kind, 37 * kind);
        REFUSED(kind >= EDGED_CAMERA && kind <= EDGED_EVICTED ? EDGED_OK : EDGED_ERR_ARGUMENT);
    }
    client_claim(0, EDGED_HEALTH, EDGED_CLAIM_MAX);
    DONE;
    client_claim(0, EDGED_HEALTH, EDGED_CLAIM_MAX + 1);
    REFUSED(EDGED_ERR_ARGUMENT);
    client_claim(3, EDGED_HEALTH, 1);
    REFUSED(EDGED_ERR_ARGUMENT);
    fetch_all();
    client_evaluate();
    client_beacon(1, 1, city_now_ns());
    DONE;
    CHECK(city.heartbeat.cameras == 0, "no camera of this agreement");
    client_confirm(client.eval->emission);
    DONE;
    end();
}

static void altered_agreement(void) {
    char saved[EDGED_MESSAGE_BYTES];

    client_agree(0);
    const size_t n = client.request_bytes;
    memcpy(saved, client.request, n);
    for (size_t at = sizeof(struct edged_hdr) + sizeof(struct eval_agreement); at < n; at++) {
        memcpy(client.request, saved, n);
        client.request[at] ^= (uint8_t)(1u << at % 8);
        client_send(client.request, n, -1);
        CHECK(client.status == EDGED_ERR_AGREEMENT, "byte %zu", at);
    }
}

/* Somebody exchanges the first recipient's key between the two that are derived from it, under the same id. */
static void exchange_slot(void) {
    static uint32_t calls;

    if (++calls == 5) /* hello, model, data, record, beacon */
        put_slot(5, 2, 2);
}

/* The slots must hold what the agreement names, and nothing may be left over. */
static void wrong_slots(void) {
    static const struct {
        uint32_t word, value;
        enum edged_status status;
    } wrong[] = {
        {0, 1, EDGED_ERR_KEY},       {0, 16, EDGED_ERR_ARGUMENT},   {1, 0, EDGED_ERR_KEY},
        {1, 4, EDGED_ERR_AGREEMENT}, {1, ~0u, EDGED_ERR_ARGUMENT},  {2, 1, EDGED_ERR_KEY},
        {2, 3, EDGED_ERR_AGREEMENT}, {2, 5, EDGED_ERR_AGREEMENT},   {3, 2, EDGED_ERR_AGREEMENT},
        {3, 16, EDGED_ERR_ARGUMENT}, {4, 1, EDGED_ERR_RESERVED},    {5, 3, EDGED_ERR_RESERVED},
        {6, 1, EDGED_ERR_LENGTH},    {7, 1, EDGED_ERR_RESERVED},    {0, 9, EDGED_ERR_KEY},
    };
    char saved[EDGED_MESSAGE_BYTES];

    client_agree(0);
    const size_t n = client.request_bytes;
    memcpy(saved, client.request, n);
    client_restart();
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        memcpy(client.request, saved, n);
        memcpy(client.request + sizeof(struct edged_hdr) + 4 * wrong[i].word, &wrong[i].value, 4);
        client_send(client.request, n, -1);
        CHECK(client.status == wrong[i].status, "word %u is %u: %u", wrong[i].word, wrong[i].value, client.status);
        CHECK(kept() == 0 && city_place(0) == EVAL_AGREEMENTS_MAX, "nothing began");
    }
    stub.key_away = 1;
    client_send((const uint8_t *)saved, n, -1);
    REFUSED(EDGED_ERR_UNAVAILABLE);
    stub.before_key_call = exchange_slot;
    client_restart();
    client_send((const uint8_t *)saved, n, -1);
    REFUSED(EDGED_ERR_AGREEMENT); /* else a stranger's beacons would tell the time */
    stub.before_key_call = NULL;
}

static void agreement(void) {
    client_start(FUZZ_SEED);
    client_agree(0);
    DONE;
    altered_agreement();
    wrong_slots();
    client_stop();
    client_start(FUZZ_SEED);
    client_agree(0);
    DONE;
    CHECK(city.epoch.unclean == 1 && city.epoch.counter == 1 && city.epoch.previous_seq == 0, "nothing before");
    end();
}

/* Each epoch's first records say what came before, over EVAL_CLOSE and over restarts. */
static void epoch(void) {
    client_start(FUZZ_SEED);
    client_evaluate();
    client_confirm(3); /* both `epoch`, and the clip's first record */
    DONE;
    struct edged_state state = city.state, wrong;
    client_restore(&state);
    REFUSED(EDGED_ERR_ORDER); /* too late, and of this epoch */
    client_restart();
    for (size_t bit = 0; bit < 8 * sizeof(state); bit += 11) {
        wrong = state;
        ((uint8_t *)&wrong)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        client_restore(&wrong);
        REFUSED(EDGED_ERR_STATE);
    }
    client_confirm(0);
    wrong = city.state;
    client_restore(&wrong);
    REFUSED(EDGED_ERR_ORDER); /* it is of this epoch itself */
    client_restore(&state);
    DONE;
    client_restore(&state);
    REFUSED(EDGED_ERR_ORDER);
    client_agree(0);
    CHECK(city.epoch.unclean == 1 && city.epoch.counter == 2 && city.epoch.previous_seq == 1 &&
              memcmp(city.epoch.previous, state.epoch, 16) == 0,
          "killed: the second recipient had one record confirmed");
    client_evaluate();
    client_request(EVAL_CLOSE, NULL, 0, -1);
    REFUSED(EDGED_ERR_ORDER);
    client_confirm(client.eval->emission);
    client_request(EVAL_CLOSE, NULL, 0, -1);
    DONE;
    state = city.state;
    client_agree(0);
    DONE;
    CHECK(city.epoch.unclean == 0 && city.epoch.counter == 3 && city.epoch.previous_seq == 2, "closed");
    client_evaluate();
    CHECK(client.eval->sessions[0].accepted == 1, "cameras are new, too");
    client_restart();
    client_restore(&state);
    DONE;
    client_agree(0);
    CHECK(city.epoch.unclean == 0 && city.epoch.counter == 3, "what was closed, was closed");
    client_request(EVAL_CLOSE, NULL, 0, -1);
    REFUSED(EDGED_ERR_ORDER); /* the first records are not confirmed */
    client_restart();
    client_agree(1);
    CHECK(city.epoch.unclean == 1 && city.epoch.counter == 1, "without its state nothing is known");
    client_restore(&state);
    REFUSED(EDGED_ERR_ORDER);
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
    beside(folder);
    refuse();
    agreement();
    limits();
    again();
    rate();
    full();
    beacon();
    epoch();
    half();
    if (city_terms(0)->rules > 2) { /* the fuzzers' small model has two labels */
        alert();
        schedule();
    }
    return 0;
}
