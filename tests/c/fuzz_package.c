/*
 * fuzz_package.c - what a signature would let in: a manifest, then a tensor stream.
 * First byte even: both are bytes of the input { u16 size, manifest, stream }. Odd:
 * the input decides the numbers of a table that is nearly right, and of its tensors.
 *
 * A package that passes every bound must evaluate: no overflow (the sanitizers see
 * it), no refusal of an honest accelerator, one result in all placements.
 */
#include "bytes.h"
#include "cbor.h"
#include "fuzz_input.h"
#include "vector.h"
#include "walk.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* More work than this is left out: it would be slow, not different. */
#define WORK_MAX ((uint64_t)1 << 22)
#define STREAM_MAX ((size_t)1 << 18)

static struct prg *prg;
static uint64_t noise;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    const char *path = getenv("EDGED_VECTORS");

    (void)argc;
    (void)argv;
    CHECK(path != NULL, "EDGED_VECTORS: name the file of `vectors.py FILE fuzz`");
    vector_open(path);
    prg = prg_new();
    return 0;
}

/* splitmix64 */
static uint64_t next_noise(void) {
    uint64_t z = noise += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

/* ------------------------------------------------------ a table from bytes --- */

/* 1 .. most, or now and then any number at all. */
static uint32_t pick(struct fuzz_input *in, uint32_t most) {
    const uint8_t b = fuzz_byte(in);
    return b == 255 ? (uint32_t)fuzz_short(in) << (fuzz_byte(in) % 17) : 1 + b % most;
}

static uint32_t range(struct fuzz_input *in) {
    static const uint32_t usual[] = {32767, 1, 127, 20000, 2047, 32766, 4095, 255};
    const uint8_t b = fuzz_byte(in);
    return b == 255 ? fuzz_short(in) : usual[b % 8];
}

struct table {
    uint32_t rows[EVAL_LAYERS_MAX][13];
    uint32_t count;
};

/* kind, cin, cout, taps, stride, order, residual, in_max, out_max, shift, adj_max, adj_shift, nnz */
static void add_row(struct table *t, const uint32_t row[13]) {
    memcpy(t->rows[t->count++], row, sizeof(t->rows[0]));
}

static void make_table(struct fuzz_input *in, struct table *t, uint32_t labels, uint32_t entries) {
    uint32_t c = 3, high = range(in);

    t->count = 0;
    add_row(t, (const uint32_t[13]){LAYER_INPUT, 3, 3, 0, 0, 0, 0, 32767, high, pick(in, 62)});
    for (uint32_t blocks = 1 + fuzz_byte(in) % 3; blocks != 0; blocks--) {
        const uint32_t cout = fuzz_byte(in) % 4 == 0 ? c : pick(in, 20), order = fuzz_byte(in) % 2;
        const uint32_t g_max = range(in), out = range(in), residual = fuzz_byte(in) % 3;
        const uint32_t stride = residual == RESIDUAL_IDENTITY ? 1 : pick(in, 4), nnz = fuzz_byte(in) % (entries + 1);
        add_row(t, (const uint32_t[13]){LAYER_GRAPH, c, cout, 1, 1, order, 0, high, g_max, pick(in, 62),
                                        order == ORDER_BEFORE ? range(in) : 0, pick(in, 62), nnz});
        if (residual == RESIDUAL_CONV)
            add_row(t, (const uint32_t[13]){LAYER_RESIDUAL, c, cout, 1, stride, 0, 0, high, range(in), pick(in, 62)});
        add_row(t, (const uint32_t[13]){LAYER_TEMPORAL, cout, cout, 2 * (pick(in, 8) - 1) + 1, stride, 0, residual,
                                        g_max, out, pick(in, 62)});
        c = cout;
        high = out;
    }
    const uint32_t pooled = range(in);
    add_row(t, (const uint32_t[13]){LAYER_POOL, c, c, 0, 0, 0, 0, high, pooled, pick(in, 62)});
    add_row(t, (const uint32_t[13]){LAYER_FC, c, labels, 0, 0, 0, 0, pooled, LOGIT_MAX, pick(in, 62)});
    if (fuzz_byte(in) == 255) /* spoil any one field */
        t->rows[fuzz_byte(in) % t->count][fuzz_byte(in) % 13] = pick(in, 64);
}

static void write_text(struct cbor_writer *w, const char *name, const char *value) {
    cbor_write_text(w, name);
    cbor_write_text(w, value);
}

static void write_uint(struct cbor_writer *w, const char *name, uint64_t value) {
    cbor_write_text(w, name);
    cbor_write_uint(w, value);
}

static size_t make_manifest(struct fuzz_input *in, uint8_t *out, size_t most) {
    static const uint8_t zero[32];
    struct cbor_writer w = {.data = out, .size = most};
    struct table t;
    const uint32_t frames = pick(in, 24), joints = pick(in, 6), persons = pick(in, 3), parts = pick(in, 3);
    const uint32_t labels = fuzz_byte(in) % 40 == 39 ? 400 : 1 + fuzz_byte(in) % 20u;

    make_table(in, &t, labels, (parts * joints * joints) % 200);
    cbor_write_map(&w, 16);
    write_text(&w, "form", "clip");
    cbor_write_text(&w, "salt");
    cbor_write_bytes(&w, zero, 32);
    write_uint(&w, "chunks", 1);
    cbor_write_text(&w, "digest");
    cbor_write_bytes(&w, zero, 32);
    write_uint(&w, "frames", frames);
    write_uint(&w, "joints", joints);
    cbor_write_text(&w, "key_id");
    cbor_write_bytes(&w, zero, 16);
    cbor_write_text(&w, "labels");
    cbor_write_head(&w, 4, labels);
    for (uint32_t i = 0; i < labels; i++)
        cbor_write_text(&w, "x");
    cbor_write_text(&w, "layers");
    cbor_write_head(&w, 4, t.count);
    for (uint32_t i = 0; i < t.count; i++) {
        cbor_write_head(&w, 4, 13);
        for (uint32_t k = 0; k < 13; k++)
            cbor_write_uint(&w, t.rows[i][k]);
    }
    write_uint(&w, "schema", 1);
    write_uint(&w, "persons", persons);
    write_uint(&w, "version", 1);
    write_text(&w, "model_id", "x");
    write_text(&w, "skeleton", "x");
    write_uint(&w, "partitions", parts);
    write_uint(&w, "placements", 7);
    return w.failed ? 0 : w.at;
}

/* ----------------------------------------------- tensors that fit a table --- */

struct stream {
    uint8_t *data;
    size_t at;
};

static void put(struct stream *s, uint64_t value, uint32_t width) {
    for (uint32_t i = 0; i < width && s->at < STREAM_MAX; i++)
        s->data[s->at++] = (uint8_t)(value >> (8 * i));
}

static void put_padding(struct stream *s) {
    while (s->at % 8 != 0)
        put(s, 0, 1);
}

/* Within +-most; its ends often. */
static int64_t value(uint64_t most) {
    const uint64_t r = next_noise();
    const int64_t v = (int64_t)((r >> 8) % (2 * most + 1)) - (int64_t)most;
    return (r & 7) == 0 ? (int64_t)most : (r & 7) == 1 ? -(int64_t)most : v;
}

static void put_values(struct stream *s, uint64_t count, uint64_t most, uint32_t width) {
    for (uint64_t i = 0; i < count && s->at < STREAM_MAX; i++)
        put(s, (uint64_t)value(most), width);
    put_padding(s);
}

/* The largest weight for which every row keeps its bound, times `loose` / 16. */
static uint64_t fitting(uint64_t in_max, uint64_t depth, uint64_t loose) {
    const uint64_t most = INT32_MAX / 2 / (in_max * depth + 1) * loose / 16;
    return most > 32767 ? 32767 : most;
}

static void put_layer(struct stream *s, const struct model *m, const struct layer *l, uint64_t loose) {
    const uint64_t all = INT32_MAX, v = m->joints;

    if (l->kind == LAYER_INPUT) {
        put_values(s, v * 3, all, 4);
        put_values(s, v * 3, all - 32768 * 256, 4);
        return;
    }
    if (l->kind == LAYER_POOL) {
        put_values(s, l->cin, l->frames_in * v * l->in_max, 4);
        put_values(s, 1, all, 4);
        return;
    }
    if (l->kind == LAYER_GRAPH) {
        uint64_t k = 0, w = 0, from = 0;
        for (uint32_t i = 0; i < l->nnz; i++) {
            const uint64_t most = l->order == ORDER_BEFORE ? all / (l->in_max * v) : all / (m->partitions * v);
            const int64_t a = value((most < 2 ? 1 : most) * loose / 16);
            put(s, k | from << 8 | w << 16 | (uint64_t)(uint32_t)(a == 0 ? 1 : a) << 32, 8);
            if (++from == v) {
                from = 0;
                if (++w == v) {
                    w = 0;
                    k++;
                }
            }
        }
    }
    const bool before = l->kind == LAYER_GRAPH && l->order == ORDER_BEFORE;
    put_values(s, (uint64_t)l->rows * l->depth, fitting(before ? l->adj_max : l->in_max, l->depth, loose), 2);
    put_values(s, l->kind == LAYER_GRAPH ? v * l->cout : l->cout, (uint64_t)1 << (loose & 31) % 30, 4);
    put_values(s, l->cout, all, 4);
    if (l->kind == LAYER_TEMPORAL)
        put_values(s, 1, l->residual == RESIDUAL_NONE ? 0 : all, 4);
}

static size_t make_stream(struct fuzz_input *in, const struct model *m, uint8_t *out) {
    struct stream s = {.data = out};
    const uint64_t loose = fuzz_byte(in) % 33; /* 16: every bound is just kept */

    put_values(&s, 32, 127, 1);
    for (uint32_t i = 0; i < m->layer_count; i++)
        put_layer(&s, m, &m->layers[i], loose);
    for (uint32_t spoiled = fuzz_byte(in) % 4; spoiled != 0 && s.at != 0; spoiled--) {
        const size_t at = (size_t)fuzz_short(in) | (size_t)fuzz_byte(in) << 16;
        s.data[at % s.at] ^= fuzz_byte(in);
    }
    return s.at;
}

/* ------------------------------------------------------------------ proof --- */

static const struct kernel *any_kernel(void) {
    uint32_t count = 0;
    while (kernel_at(count) != NULL)
        count++;
    return kernel_at((uint32_t)(noise >> 16) % count);
}

static void evaluate(struct model *m, struct fuzz_input *in) {
    int32_t logits[EVAL_LABELS_MAX], first[EVAL_LABELS_MAX];
    uint32_t probabilities[EVAL_LABELS_MAX];
    const size_t count = (size_t)m->persons * m->frames * m->joints * 3;
    const uint32_t persons = fuzz_byte(in) % (m->persons + 1);
    int16_t *clip = malloc(count * 2);
    uint64_t work = 0;
    bool known = false;

    for (uint32_t p = 0; p < m->product_count; p++) {
        const struct layer *l = &m->layers[m->product_layer[p]];
        work += (uint64_t)l->rows * l->depth * l->frames_out * m->joints * m->persons;
    }
    for (size_t i = 0; clip != NULL && i < count; i++)
        clip[i] = (int16_t)value(32767);
    for (uint32_t placement = EVAL_MASKED; placement <= EVAL_ENCLAVE && work <= WORK_MAX && clip != NULL; placement++) {
        struct walk w = {.see = NULL};
        if (walk_load(&w, m, (enum eval_placement)placement, any_kernel(), prg, 1) != EDGED_OK)
            continue;
        const bool ahead = (noise >> 8 & 1) != 0 && placement != EVAL_ENCLAVE && persons != 0;
        CHECK(walk_clip(&w, placement + 1, persons, ahead, clip, logits, probabilities) == m->step_count,
              "an honest accelerator");
        if (known)
            CHECK(memcmp(first, logits, m->labels * 4) == 0, "placement %u", placement);
        memcpy(first, logits, m->labels * 4);
        known = true;
        walk_unload(&w);
    }
    free(clip);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t manifest[32768], stream[STREAM_MAX];
    static struct model m;
    struct fuzz_input in = {.data = data, .left = size};
    const bool made = (fuzz_byte(&in) & 1) != 0;
    size_t manifest_bytes, stream_bytes, chunk;

    noise = size;
    if (made) {
        noise = (uint64_t)fuzz_short(&in) << 8;
        manifest_bytes = make_manifest(&in, manifest, sizeof(manifest));
    } else {
        manifest_bytes = fuzz_short(&in);
        manifest_bytes = fuzz_bytes(&in, manifest, manifest_bytes, sizeof(manifest));
    }
    uint8_t *exact = malloc(manifest_bytes + (manifest_bytes == 0));
    CHECK(exact != NULL, "manifest");
    memcpy(exact, manifest, manifest_bytes);
    if (made && model_read_manifest(&m, exact, manifest_bytes) == EDGED_OK)
        stream_bytes = make_stream(&in, &m, stream);
    else
        stream_bytes = fuzz_bytes(&in, stream, STREAM_MAX, STREAM_MAX);
    chunk = fuzz_byte(&in) % 8 == 7 ? 1 + fuzz_byte(&in) : EVAL_SEAL_BYTES;
    if (walk_read(&m, exact, manifest_bytes, stream, stream_bytes, chunk) == EDGED_OK)
        evaluate(&m, &in);
    model_release(&m);
    free(exact);
    return 0;
}
