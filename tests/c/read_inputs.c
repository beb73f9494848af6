/*
 * read_inputs.c - the readers of what arrives signed, for a comparison with those in Python.
 *
 * stdin   any number of { u8 what: 'a' agreement, 'g' grant, 'f' floor, 'm' manifest; u32 size; bytes }
 * stdout  one status each, in decimal, on a line (0: taken)
 */
#include <stdlib.h>

#include "agreement.h"
#include "crypto.h"
#include "floor.h"
#include "grant.h"
#include "model.h"
#include "vector.h"

enum { INPUT_MAX = 1 << 20 };

static enum edged_status judge(int what, const uint8_t *bytes, size_t size) {
    static struct model m;
    struct agreement a;
    struct grant g;
    struct floor f;

    switch (what) {
    case 'a':
        return agreement_read(&a, bytes, size);
    case 'g':
        return grant_read(&g, bytes, size);
    case 'f': {
        const enum edged_status status = floor_read(&f, bytes, size);
        return status == EDGED_OK && !floor_holds(&f) ? EDGED_ERR_GRANT : status;
    }
    default:
        CHECK(what == 'm', "an input of kind %d", what);
        return model_read_manifest(&m, bytes, size);
    }
}

int main(void) {
    int what;

    CHECK(crypto_init() == 0, "crypto library");
    while ((what = getchar()) != EOF) {
        uint8_t head[4];
        CHECK(fread(head, 1, sizeof(head), stdin) == sizeof(head), "a size");
        const size_t size = head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
        CHECK(size <= INPUT_MAX, "an input of %zu bytes", size);
        uint8_t *bytes = malloc(size + (size == 0)); /* exact: a sanitizer sees who reads behind it */
        CHECK(bytes != NULL && fread(bytes, 1, size, stdin) == size, "an input of %zu bytes", size);
        printf("%d\n", (int)judge(what, bytes, size));
        free(bytes);
    }
    return 0;
}
