/*
 * port_stub.h - lib/port.h in one process: a deterministic random source, a clock that
 * the test moves, the key application called directly, shared memory that is a block of
 * the heap (so that a sanitizer sees its end), and faults on demand.
 */
#ifndef EDGED_TEST_PORT_STUB_H
#define EDGED_TEST_PORT_STUB_H

#include "key.h"
#include "port.h"

/** struct stub - set and read by a test; all zero is a faultless port */
struct stub {
    struct key_app *key;
    struct key_link link;
    bool no_station;       /* no flash station gave a secret */
    bool no_link_secret;
    bool hardware;         /* it says that it protects something */
    struct port_boot boot;
    bool no_counter;       /* no monotonic store */
    uint32_t counter_left; /* n: the n-th use of it from now fails; 0: none does */
    struct port_counter counter;
    bool reconnect;        /* the next call finds a new channel */
    uint32_t random_left;  /* 0: always; n: the n-th draw from now fails */
    uint32_t key_away;     /* so many calls fail */
    uint32_t key_garbles;  /* so many answers have one bit flipped */
    uint32_t garbled_bit;
    void (*before_key_call)(void);
    uint32_t handles;      /* taken over so far */
    uint8_t *window;       /* the last one mapped */
    size_t window_bytes;
    uint64_t seed;
    uint64_t uptime_ns;    /* as told last; a test may set it ahead */
};

extern struct stub stub;

/* The applications' UUIDs. */
extern const uint8_t stub_key_uuid[16], stub_eval_uuid[16];

/* As at start, with another seed. Keeps nothing; the caller destroys the applications first. */
void stub_reset(uint64_t seed);

#endif
