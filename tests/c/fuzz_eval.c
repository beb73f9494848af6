/*
 * fuzz_eval.c - EVAL_PORT: any list of messages, from any state, with faults of the
 * port in between, over kills and epochs. Each answer is judged: whatever came before, a
 * record is what the city expects (city.h). At the end an honest client may have to be served.
 */
#include "ask.h"
#include "client.h"
#include "crypto_stub.h"
#include "fuzz_input.h"
#include "heap_stub.h"
#include "port_stub.h"
#include "vector.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    const char *path = getenv("EDGED_VECTORS");

    (void)argc;
    (void)argv;
    CHECK(path != NULL, "EDGED_VECTORS: name the file of `vectors.py FILE fuzz`");
    vector_open(path);
    client_init();
    return 0;
}

static void set_style(uint8_t style) {
    client.placement = (style & 3) % 3;
    city.drawn = (style & 3) == 3;
    client.window = (style & 4) != 0;
    client.ahead = (style & 8) != 0;
    client.persons = (style >> 4 & 3) % 3;
    client.again = (style & 64) != 0;
}

static void go_to_start(uint32_t start) {
    static const uint32_t states[FUZZ_START_COUNT] = {STATE_EMPTY,   STATE_WEIGHTS, STATE_READY,
                                                      STATE_PREPARE, STATE_CLIP,    STATE_STEP};
    /* Some states do not come with some styles (no weights cross where nothing leaves). */
    client_advance(start == FUZZ_START_EMPTY ? 0 : 400, states[start]);
}

static void send_raw(struct fuzz_input *in) {
    uint8_t message[EDGED_MESSAGE_BYTES + 1];
    const size_t size = fuzz_short(in);
    const int handle = fuzz_byte(in) & 1 ? CLIENT_WINDOW_HANDLE : -1;
    const size_t n = fuzz_bytes(in, message, size, sizeof(message));

    client_send(message, n, handle);
}

static void send_framed(struct fuzz_input *in) {
    uint8_t body[EDGED_MESSAGE_BYTES - sizeof(struct edged_hdr)];
    const uint16_t cmd = fuzz_byte(in) % (EVAL_SUCCEED + 2);
    const int handle = fuzz_byte(in) & 1 ? CLIENT_WINDOW_HANDLE : -1;
    const size_t size = fuzz_short(in), n = fuzz_bytes(in, body, size, sizeof(body));

    client_request(cmd, body, n, handle);
}

static void send_patched(struct fuzz_input *in) {
    const int handle = client_due();

    for (uint32_t count = fuzz_byte(in) % 4 + 1u; count != 0; count--) {
        const size_t at = fuzz_short(in);
        client.request[at % client.request_bytes] ^= fuzz_byte(in);
    }
    client_send(client.request, client.request_bytes, handle);
}

static void send_resized(struct fuzz_input *in) {
    const int handle = client_due();
    const int8_t more = (int8_t)fuzz_byte(in);
    size_t size = client.request_bytes;

    if (more < 0 && size < sizeof(struct edged_hdr) + (size_t)-more)
        size = sizeof(struct edged_hdr);
    else
        size = (size_t)((long)size + more);
    if (size > EDGED_MESSAGE_BYTES)
        size = EDGED_MESSAGE_BYTES;
    const uint32_t len = (uint32_t)(size - sizeof(struct edged_hdr));
    memcpy(client.request + offsetof(struct edged_hdr, len), &len, sizeof(len));
    client_send(client.request, size, handle);
}

/* Faults that wait while the application does not run: the client calls the same libraries. */
static uint32_t heap_fault, stream_fault, seal_fault;

static void around(bool inside) {
    uint32_t *const live[] = {&heap_left, &stream_left, &seal_left};
    uint32_t *const kept[] = {&heap_fault, &stream_fault, &seal_fault};

    for (uint32_t i = 0; i < 3; i++) {
        if (!inside)
            *kept[i] = *live[i];
        *live[i] = inside ? *kept[i] : 0;
    }
}

static void fault(struct fuzz_input *in) {
    const uint8_t which = fuzz_byte(in), when = fuzz_byte(in);

    switch (which % 8) {
    case 0:
        stub.random_left = when;
        break;
    case 1:
        stub.key_away = when % 4;
        break;
    case 2:
        stub.key_garbles = 1;
        stub.garbled_bit = when * 5u;
        break;
    case 3:
        heap_fault = when % 16;
        break;
    case 4:
        stream_fault = when;
        break;
    case 5:
        seal_fault = when % 8;
        break;
    case 6:
        stub.uptime_ns += when * 600 * CITY_SECOND;
        break;
    default:
        key_link_close(&stub.link);
        stub.reconnect = true;
    }
}

static void no_faults(void) {
    heap_fault = stream_fault = seal_fault = 0;
    stub.random_left = stub.key_away = stub.key_garbles = 0;
}

static void send_beacon(uint32_t deal, uint32_t recipient, uint64_t late_ns) {
    const uint32_t place = city_place(deal);

    if (place != EVAL_AGREEMENTS_MAX)
        ask_beacon(place, recipient, city_now_ns() - late_ns);
}

static void city_acts(struct fuzz_input *in) {
    const uint8_t what = fuzz_byte(in) % CITY_OPERATIONS, argument = fuzz_byte(in);
    const uint64_t minutes = argument * 60 * CITY_SECOND, emission = client.eval->emission;

    switch (what) {
    case CITY_AGREES: /* one place is left for the honest client's */
        ask_agree(argument % EVAL_AGREEMENTS_MAX);
        break;
    case CITY_BEACON:
        send_beacon(argument >> 1 & 1, argument & 1, 0);
        break;
    case CITY_LATE:
        send_beacon(0, argument & 1, minutes);
        break;
    case CITY_CLOCK:
        city.ahead_ns += minutes;
        break;
    case CITY_CLAIM:
        ask_claim(argument & 3, EDGED_CAMERA + (argument >> 2) % 5u, argument * 5u % (EDGED_CLAIM_MAX + 2));
        break;
    case CITY_EXERCISE:
        ask_exercise(argument & 3, argument >> 2 & 15);
        break;
    case CITY_CONFIRM:
        ask_confirm(emission > argument ? emission - argument : 0);
        break;
    case CITY_CLOSE:
        client_request(EVAL_CLOSE, NULL, 0, -1);
        break;
    case CITY_SUCCEED:
        ask_succeed(argument & 3, argument >> 2 & 3);
        break;
    case CITY_RESTORE:
        if (city.has_state)
            ask_restore(&city.state);
        break;
    default:
        stub.random_left = 0; /* without randomness it would not start */
        client_restart();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = {.data = data, .left = size};
    const uint32_t start = fuzz_byte(&in) % FUZZ_START_COUNT;
    const uint8_t style = fuzz_byte(&in);

    client_start(FUZZ_SEED);
    no_faults();
    client.around = around;
    client.faults = true;
    set_style(style);
    go_to_start(start);
    for (uint32_t budget = 400; in.left != 0 && budget != 0; budget--)
        switch (fuzz_byte(&in) % FUZZ_OPERATIONS) {
        case FUZZ_RAW:
            send_raw(&in);
            break;
        case FUZZ_FRAMED:
            send_framed(&in);
            break;
        case FUZZ_DUE:
            client_advance(fuzz_byte(&in) % 64 + 1u, 0);
            break;
        case FUZZ_PATCHED:
            send_patched(&in);
            break;
        case FUZZ_RESIZED:
            send_resized(&in);
            break;
        case FUZZ_STYLE:
            set_style(fuzz_byte(&in));
            break;
        case FUZZ_FAULT:
            fault(&in);
            break;
        case FUZZ_CITY:
            city_acts(&in);
            break;
        default:
            eval_disconnect(client.eval);
        }
    no_faults();
    if ((style & 128) != 0) {
        eval_disconnect(client.eval);
        client_evaluate();
    }
    client_stop();
    return 0;
}
