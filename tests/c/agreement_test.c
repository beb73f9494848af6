/*
 * agreement_test.c - what the agreement, the city's beacons and time decide: who is told
 * what of which clip, which clips are not evaluated, how an epoch begins and ends. Every
 * record is compared with what the city expects, byte for byte (city.h); what stands
 * here is what a test asks beside that.
 *
 *   agreement_test VECTORS
 */
#include <string.h>

#include "ask.h"
#include "client.h"
#include "port_stub.h"
#include "vector.h"

#define SEED 1u

/* Of the day on which the stub's clock began, or the next. */
static uint64_t at_ns(uint32_t hour, int32_t more_s) {
    const uint64_t day_s = 86400, midnight_s = CITY_BEGIN_S / day_s * day_s + day_s;

    return (midnight_s + hour * 3600u) * CITY_SECOND + (uint64_t)(more_s * (int64_t)CITY_SECOND);
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

    client_start(SEED);
    client.placement = EVAL_ENCLAVE;
    ask_agree(0);
    ask_beacon(0, 0, at_ns(12, 0)); /* by day the third one does not hold */
    clip(0, NONE, NONE, EDGED_OBSERVATION, EDGED_OBSERVATION);
    clip(1, ALERT, NONE, EDGED_ALERT, EDGED_ALERT);
    clip(1, UPDATE, NONE, EDGED_ALERT, EDGED_ALERT);
    city_pass_s(30);
    clip(2, NONE, ALERT, EDGED_ALERT, EDGED_OBSERVATION);
    clip(2, NONE, UPDATE, EDGED_ALERT, EDGED_OBSERVATION);
    clip(1, UPDATE, CANCEL, EDGED_ALERT, EDGED_ALERT); /* within its cool-down it goes on */
    city_pass_s(59);
    clip(0, NONE, NONE, EDGED_OBSERVATION, EDGED_OBSERVATION);
    city_pass_s(1);
    clip(0, CANCEL, NONE, EDGED_ALERT, EDGED_ALERT);
    clip(0, NONE, NONE, EDGED_OBSERVATION, EDGED_OBSERVATION);
    clip(1, ALERT, NONE, EDGED_ALERT, EDGED_ALERT);
    city_pass_s(60);
    clip(2, CANCEL, ALERT, EDGED_ALERT, EDGED_ALERT); /* the second recipient is not told of the two */
    clip(0, NONE, CANCEL, EDGED_ALERT, EDGED_OBSERVATION);
    clip(1, ALERT, NONE, EDGED_ALERT, EDGED_ALERT);
    clip(0, NONE, NONE, EDGED_OBSERVATION, EDGED_OBSERVATION);
    city_pass_s(3600); /* clips that never came end no event, but another one is no update of it */
    clip(1, ALERT, NONE, EDGED_ALERT, EDGED_ALERT);
    city_pass_s(3600); /* it held, and holds again: nobody looked meanwhile, so it is another event */
    clip(1, ALERT, NONE, EDGED_ALERT, EDGED_ALERT);
    clip(2, NONE, ALERT, EDGED_ALERT, EDGED_OBSERVATION);
    city_pass_s(EDGED_PAUSE_S - 1); /* without a cool-down, too, it goes on that long */
    clip(2, NONE, UPDATE, EDGED_ALERT, EDGED_OBSERVATION);
    city_pass_s(EDGED_PAUSE_S);
    clip(2, NONE, ALERT, EDGED_ALERT, EDGED_OBSERVATION);
    clip(1, UPDATE, CANCEL, EDGED_ALERT, EDGED_ALERT);
    /* New keys are no new event. */
    struct eval_session_open ask = {.agreement = city_place(0)};
    memcpy(ask.camera, client.eval->sessions[0].camera, sizeof(ask.camera));
    client_request(EVAL_SESSION_OPEN, &ask, sizeof(ask), -1);
    DONE;
    ask_beacon(0, 1, city_now_ns()); /* nor are the camera's clips forgotten */
    DONE;
    clip(1, UPDATE, NONE, EDGED_ALERT, EDGED_ALERT);
    client.again = false;
    client.placement = EVAL_MASKED; /* a failed clip ends nothing */
    eval_disconnect(client.eval);
    client_spoil();
    ask_index(EVAL_CLIP_ABORT, 0);
    DONE;
    clip(1, UPDATE, NONE, EDGED_ALERT, EDGED_ALERT);
    client_stop();
}

/* The third rule holds at night alone, the second by day, by the city's clock. */
static void schedule(void) {
    client_start(SEED);
    client.placement = EVAL_ENCLAVE;
    client.persons = 0;
    client_evaluate();
    CHECK(city.messages[2] == EDGED_MESSAGE_ALERT, "no beacon told the time: it holds");
    client.persons = 2;
    client_evaluate();
    CHECK(city.messages[1] == EDGED_MESSAGE_ALERT, "and that of the day, too");
    client.persons = 0;
    ask_beacon(0, 0, at_ns(6, -2));
    DONE;
    client_evaluate();
    CHECK(city.messages[2] == EDGED_MESSAGE_UPDATE, "before six, again within its cool-down");
    city_pass_s(3);
    client_evaluate();
    CHECK(city.messages[2] == EDGED_MESSAGE_NONE, "after six it holds no longer, and cools down");
    city_pass_s(600);
    client_evaluate();
    CHECK(city.messages[2] == EDGED_MESSAGE_CANCEL, "cooled down");
    ask_beacon(0, 0, at_ns(22, -1));
    client_evaluate();
    CHECK(city.messages[2] == EDGED_MESSAGE_NONE, "before ten");
    city_pass_s(1);
    client_evaluate();
    CHECK(city.messages[2] == EDGED_MESSAGE_ALERT, "at ten");
    client.persons = 2;
    client_evaluate();
    CHECK(city.messages[1] == EDGED_MESSAGE_NONE, "two by night");
    client_stop();
}

/* What an agreement does not cover, or not now, is not evaluated: not even again. */
static void limits(void) {
    struct eval_session_open ask = {.camera = "another camera"};

    client_start(SEED);
    client.placement = EVAL_INPUTS;
    client_evaluate();
    client_put_slot(4, 1, 1);
    client_request(EVAL_SESSION_OPEN, &ask, sizeof(ask), -1);
    REFUSED(EDGED_ERR_KEY); /* the slot holds another city's key since */
    client_put_slot(1, 1, 4);
    client_request(EVAL_SESSION_OPEN, &ask, sizeof(ask), -1);
    REFUSED(EDGED_ERR_KEY);
    client_put_slot(1, 1, 1);
    for (uint32_t deal = 1; deal <= CITY_EXPIRED; deal++) {
        ask_agree(deal);
        DONE;
    }
    ask_agree(CITY_NAMING);
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
    ask_index(EVAL_CLIP_ABORT, 3);
    DONE;
    ask_beacon(city_place(CITY_EXPIRED), 1, city_now_ns());
    DONE;
    client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
    REFUSED(EDGED_ERR_AGREEMENT); /* it is over */
    client_stop();
}

/* A clip that was taken comes again under the placement, model and time that the agreement covers, or not at all. */
static void again(void) {
    client_start(SEED);
    client.again = true;
    client_spoil();
    REFUSED(EDGED_ERR_VERIFICATION);
    ask_index(EVAL_SESSION_CLOSE, 0);
    REFUSED(EDGED_ERR_ORDER); /* it has no record yet */
    struct eval_session_open keys = {.agreement = 0};
    memcpy(keys.camera, client.eval->sessions[0].camera, sizeof(keys.camera));
    client_request(EVAL_SESSION_OPEN, &keys, sizeof(keys), -1);
    REFUSED(EDGED_ERR_ORDER);
    city_pass_s(7201);
    client_advance(1, 0);
    CHECK(client.status == EDGED_OK, "the honest client sends a beacon first");
    city_pass_s(7201);
    const struct eval_clip_open open = {
        .number = client.eval->sessions[0].number, .bytes = client.eval->clip.bytes};
    client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
    REFUSED(EDGED_ERR_LOCKED);
    ask_beacon(0, 1, city_now_ns());
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
    client_stop();
}

/* A clip of nobody in the first session: evaluated where it is taken. */
static enum edged_status offer(uint64_t number) {
    const struct eval_clip_open open = {.number = number, .bytes = sizeof(struct edged_clip) + EVAL_TAG_BYTES};

    client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
    const enum edged_status status = client.status;
    if (status == EDGED_OK) {
        client_advance(2, STATE_READY);
        DONE;
    }
    return status;
}

/* The other city permits two clips an hour. */
static void rate(void) {
    struct eval_session_open ask = {.camera = "another camera"};

    client_start(SEED);
    client_advance(20000, STATE_READY);
    ask_agree(1);
    ask.agreement = city_place(1);
    client_request(EVAL_SESSION_OPEN, &ask, sizeof(ask), -1);
    CHECK(offer(1) == EDGED_ERR_RATE, "a beginning brings a second's");
    city_pass_s(1798);
    CHECK(offer(1) == EDGED_ERR_RATE, "one in each half hour");
    city_pass_s(1);
    CHECK(offer(1) == EDGED_OK && offer(2) == EDGED_ERR_RATE, "one in each half hour");
    city_pass_s(1799);
    CHECK(offer(2) == EDGED_ERR_RATE, "one in each half hour");
    city_pass_s(1);
    CHECK(offer(2) == EDGED_OK && offer(3) == EDGED_ERR_RATE, "one in each half hour");
    city_pass_s(3 * 3600);
    ask_beacon(ask.agreement, 0, city_now_ns());
    CHECK(offer(3) == EDGED_OK && offer(4) == EDGED_OK && offer(5) == EDGED_ERR_RATE, "saved up is one hour's at most");
    CHECK(client.observations == 4, "%u clips of nobody", client.observations);
    client_stop();
}

/* Beacons are answered to who sent them, tell the time, and keep the agreement from being locked. */
static void beacon(void) {
    client_start(SEED);
    client_evaluate();
    const uint64_t first_ns = city_now_ns();
    ask_beacon(0, 1, first_ns);
    DONE;
    CHECK(city.heartbeat.time_ns == first_ns && city.heartbeat.cameras == 1 && city.heartbeat.counter == 1,
          "heartbeat");
    ask_beacon(0, 1, first_ns);
    REFUSED(EDGED_ERR_ARGUMENT); /* replayed */
    ask_beacon(0, 1, first_ns - 1);
    REFUSED(EDGED_ERR_ARGUMENT);
    ask_beacon(0, 1, (uint64_t)1 << 63);
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
    city_pass_s(3000);
    ask_beacon(0, 0, first_ns + 1); /* another recipient's, held back: the time does not go back */
    DONE;
    client_evaluate();
    city_pass_s(7201);
    ask_beacon(0, 0, first_ns + 2); /* older than the limit: answered, but it unlocks nothing */
    DONE;
    struct eval_clip_open open = {.number = 9, .bytes = sizeof(struct edged_clip) + EVAL_TAG_BYTES};
    client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
    REFUSED(EDGED_ERR_LOCKED);
    ask_beacon(0, 0, city_now_ns());
    DONE;
    client_evaluate();
    client_stop();
}

/* What the city's clock told outlives the enclave: nothing older than that tells the time, or unlocks anything. */
static void clocks_go_on(void) {
    const uint64_t limit_ns = city_terms(0)->limit_s * CITY_SECOND;
    struct eval_clip_open open = {.number = 9, .bytes = sizeof(struct edged_clip) + EVAL_TAG_BYTES};

    client_start(SEED);
    client_evaluate();
    const uint64_t told_ns = city_now_ns();
    ask_beacon(0, 1, told_ns);
    DONE;
    const struct eval_beacon before = city_beacon(0, 0, told_ns + 1);
    ask_confirm(client.eval->emission);
    const struct edged_state state = city.state;
    for (uint32_t epoch = 0; epoch < 2; epoch++) { /* what was restored is told on */
        client_restart();
        ask_restore(&state);
        DONE;
        const uint64_t restored_ns = stub.uptime_ns;
        city_pass_s(1000);
        ask_agree(0);
        client_evaluate();
        client_request(EVAL_BEACON, &before, sizeof(before), -1);
        REFUSED(EDGED_ERR_KEY); /* made for another epoch's salt */
        ask_beacon(0, 1, told_ns);
        REFUSED(EDGED_ERR_ARGUMENT);
        ask_beacon(0, 1, told_ns - 1);
        REFUSED(EDGED_ERR_ARGUMENT);
        city_pass_s(city_terms(0)->limit_s + 1);
        const uint64_t passed_ns = stub.uptime_ns - restored_ns; /* the time goes on, agreement or not */
        const uint64_t late_ns = told_ns + passed_ns - passed_ns / 1024 - limit_ns - 1;
        ask_beacon(0, 0, late_ns); /* another recipient's, held back since before */
        DONE;
        client_request(EVAL_CLIP_OPEN, &open, sizeof(open), -1);
        REFUSED(EDGED_ERR_LOCKED);
        ask_beacon(0, 0, late_ns + 1); /* as late as any may be */
        DONE;
        client_evaluate();
        ask_confirm(client.eval->emission);
    }
    client_stop();
}

static void altered_agreement(void) {
    char saved[EDGED_MESSAGE_BYTES];

    ask_agree(0);
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

    if (++calls == 6) /* hello, confirmed, model, data, record, beacon */
        client_put_slot(5, 2, 2);
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

    ask_agree(0);
    const size_t n = client.request_bytes;
    memcpy(saved, client.request, n);
    client_restart();
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        memcpy(client.request, saved, n);
        memcpy(client.request + sizeof(struct edged_hdr) + 4 * wrong[i].word, &wrong[i].value, 4);
        client_send(client.request, n, -1);
        CHECK(client.status == wrong[i].status, "word %u is %u: %u", wrong[i].word, wrong[i].value, client.status);
        CHECK(ask_kept() == 0 && city_place(0) == EVAL_AGREEMENTS_MAX, "nothing began");
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

/* Likewise the model's, between its owner's signature and the key that opens the chunks. */
static void exchange_model(void) {
    static uint32_t calls;

    if (++calls == 2)
        client_put_slot(CLIENT_FORGED_SLOT, 0, 0);
}

static void exchanged_model(void) {
    client_start(SEED);
    client_advance(100, STATE_ENVELOPE);
    stub.before_key_call = exchange_model;
    client_advance(100, STATE_CHUNKS | STATE_EMPTY);
    REFUSED(EDGED_ERR_KEY); /* else his floor and agreement would count, whose the package is not */
    stub.before_key_call = NULL;
    client_stop();
}

static void agreement(void) {
    client_start(SEED);
    ask_agree(0);
    DONE;
    altered_agreement();
    wrong_slots();
    client_stop();
    client_start(SEED);
    ask_agree(0);
    DONE;
    CHECK(city.epoch.unclean == 1 && city.epoch.counter == 1 && city.epoch.previous_seq == 0, "nothing before");
    client_stop();
}

/* Each epoch's first records say what came before, over EVAL_CLOSE and over restarts. */
static void epoch(void) {
    client_start(SEED);
    client_evaluate();
    ask_confirm(3); /* both `epoch`, and the clip's first record */
    DONE;
    struct edged_state state = city.state, wrong;
    ask_restore(&state);
    REFUSED(EDGED_ERR_ORDER); /* too late, and of this epoch */
    client_restart();
    for (size_t bit = 0; bit < 8 * sizeof(state); bit += 11) {
        wrong = state;
        ((uint8_t *)&wrong)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        ask_restore(&wrong);
        REFUSED(EDGED_ERR_STATE);
    }
    ask_confirm(0);
    wrong = city.state;
    ask_restore(&wrong);
    REFUSED(EDGED_ERR_ORDER); /* it is of this epoch itself */
    ask_restore(&state);
    DONE;
    ask_restore(&state);
    REFUSED(EDGED_ERR_ORDER);
    ask_agree(0);
    CHECK(city.epoch.unclean == 1 && city.epoch.counter == 2 && city.epoch.previous_seq == 1 &&
              memcmp(city.epoch.previous, state.epoch, 16) == 0,
          "killed: the second recipient had one record confirmed");
    client_evaluate();
    client_request(EVAL_CLOSE, NULL, 0, -1);
    REFUSED(EDGED_ERR_ORDER);
    ask_confirm(client.eval->emission);
    client_request(EVAL_CLOSE, NULL, 0, -1);
    DONE;
    state = city.state;
    ask_agree(0);
    DONE;
    CHECK(city.epoch.unclean == 0 && city.epoch.counter == 3 && city.epoch.previous_seq == 2, "closed");
    client_evaluate();
    CHECK(client.eval->sessions[0].accepted == 1, "cameras are new, too");
    client_restart();
    ask_restore(&state);
    DONE;
    ask_agree(0);
    CHECK(city.epoch.unclean == 0 && city.epoch.counter == 3, "what was closed, was closed");
    client_request(EVAL_CLOSE, NULL, 0, -1);
    REFUSED(EDGED_ERR_ORDER); /* the first records are not confirmed */
    client_restart();
    ask_agree(0);
    ask_agree(CITY_SAME);
    CHECK(city.epoch.unclean == 1 && city.epoch.counter == 1, "without its state nothing is known");
    ask_restore(&state);
    REFUSED(EDGED_ERR_ORDER);
    ask_exercise(0, 0); /* the first one's number is now behind that of its other agreement */
    ask_confirm(client.eval->emission);
    state = city.state;
    client_restart();
    ask_restore(&state);
    ask_agree(CITY_SAME);
    CHECK(city.epoch.previous_seq == 3, "of all that it was sent, the last");
    ask_agree(CITY_NAMING); /* another city's, one of whose recipients has the name of this one's */
    REFUSED(EDGED_ERR_RECIPIENT);
    client_restart();
    ask_agree(CITY_NAMING);
    DONE;
    ask_agree(0);
    REFUSED(EDGED_ERR_RECIPIENT); /* whoever comes first: no number is spent on somebody else's record */
    client_stop();
}

/* The honest client's camera opens a session under the agreement in that place, too. */
static void go_over(uint32_t place) {
    struct eval_session_open ask = {.agreement = place, .camera = "camera of the tests"};

    client_request(EVAL_SESSION_OPEN, &ask, sizeof(ask), -1);
}

static void nothing_under(uint32_t place) {
    const uint64_t before = client.eval->emission;

    go_over(place);
    REFUSED(EDGED_ERR_ARGUMENT);
    ask_exercise(place, 0);
    REFUSED(EDGED_ERR_ARGUMENT);
    ask_claim(place, EDGED_HEALTH, 1);
    REFUSED(EDGED_ERR_ARGUMENT);
    CHECK(client.eval->emission == before, "nothing was sealed");
}

/* Each of a city's agreements follows the one before, and is all that is left of it. */
static void succession(void) {
    client_start(SEED);
    client.placement = EVAL_ENCLAVE;
    clip(1, EDGED_MESSAGE_ALERT, EDGED_MESSAGE_NONE, EDGED_ALERT, EDGED_ALERT);
    ask_agree(CITY_SAME);
    ask_agree(1); /* another city's */
    const uint32_t first = city_place(0), same = city_place(CITY_SAME), other = city_place(1), none = 3;
    const uint32_t wrong[][2] = {{first, first}, {same, first}, {first, other}, {other, same}, {first, none},
                                 {none, first},  {first, 4},    {4, same},      {first, UINT32_MAX}};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        ask_succeed(wrong[i][0], wrong[i][1]);
        REFUSED(EDGED_ERR_ARGUMENT);
    }
    ask_succeed(first, same);
    REFUSED(EDGED_ERR_ORDER); /* its camera is left */
    go_over(same);
    DONE;
    ask_succeed(first, same);
    REFUSED(EDGED_ERR_ORDER);
    ask_index(EVAL_SESSION_CLOSE, 0);
    DONE;
    const struct eval_beacon late = city_beacon(first, 0, city_now_ns());
    ask_beacon(same, 0, city_now_ns());
    DONE; /* both are in force */
    ask_succeed(first, same);
    DONE;
    CHECK(city.kinds[0] == EDGED_SUCCESSION && city.kinds[1] == EDGED_SUCCESSION, "both are told");
    ask_succeed(first, same);
    REFUSED(EDGED_ERR_ARGUMENT);
    nothing_under(first);
    client_request(EVAL_BEACON, &late, sizeof(late), -1);
    REFUSED(EDGED_ERR_KEY);
    ask_agree(0);
    REFUSED(EDGED_ERR_AGREEMENT);
    clip(1, EDGED_MESSAGE_UPDATE, EDGED_MESSAGE_NONE, EDGED_ALERT, EDGED_ALERT); /* goes on */
    ask_confirm(client.eval->emission);
    DONE;
    ask_agree(0);
    REFUSED(EDGED_ERR_AGREEMENT); /* its place is free, and still it is over */
    nothing_under(first);
    ask_agree(CITY_CHANGED);
    DONE;
    const uint32_t changed = city_place(CITY_CHANGED);
    CHECK(changed == first, "the place is taken again");
    go_over(changed);
    DONE;
    ask_index(EVAL_SESSION_CLOSE, 1);
    DONE;
    ask_succeed(same, changed);
    DONE;
    CHECK(memcmp(city_terms(CITY_CHANGED)->recipient[0].rcpt, city_terms(0)->recipient[1].rcpt, 16) == 0, "he stays");
    client_evaluate(); /* who came with this agreement was never told, so it is an alert */
    CHECK(city.messages[2] == EDGED_MESSAGE_ALERT, "the same rule, in another place: message %u", city.messages[2]);
    ask_agree(0);
    REFUSED(EDGED_ERR_AGREEMENT);
    ask_agree(CITY_SAME);
    REFUSED(EDGED_ERR_AGREEMENT);
    ask_confirm(client.eval->emission - 1);
    DONE;
    const struct edged_state state = city.state;
    client_restart();
    ask_restore(&state);
    DONE;
    ask_agree(0); /* in another epoch only the city can tell */
    DONE;
    CHECK(city.epoch.previous_seq == 8, "the sequence went on over three agreements: %llu",
          (unsigned long long)city.epoch.previous_seq);
    client_stop();
}

int main(int argc, char **argv) {
    CHECK(argc == 2, "usage: agreement_test VECTORS");
    vector_open(argv[1]);
    client_init();
    CHECK(city_terms(0)->rules == 3, "a model of three labels or more");
    alert();
    schedule();
    agreement();
    exchanged_model();
    limits();
    again();
    rate();
    beacon();
    clocks_go_on();
    epoch();
    succession();
    return 0;
}
