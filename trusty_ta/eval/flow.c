#include "flow.h"

#include "bytes.h"

void flow_begin(struct eval *e, uint32_t first, uint32_t end) {
    e->flow = (struct flow){.product = first, .end = end};
}

/* Step on when an object is complete. */
static void next_object(struct flow *f) {
    f->product++;
    f->offset = 0;
    f->tile = 0;
}

enum edged_status flow_read(struct eval *e, enum network_flow kind, uint32_t persons,
                            const struct edged_chunk *at, uint8_t *out, size_t *size) {
    struct flow *f = &e->flow;

    if (flow_done(e) || at->object != f->product || at->offset != f->offset)
        return EDGED_ERR_OBJECT;
    const uint64_t object = network_object_words(&e->network, kind, f->product, persons) * 4;
    *size = object - f->offset < EDGED_CHUNK_BYTES ? (size_t)(object - f->offset) : EDGED_CHUNK_BYTES;
    for (size_t done = 0; done < *size;) {
        if (f->tile_bytes == 0) {
            const uint32_t *words;
            if (f->tile >= network_tiles(&e->network, kind, f->product, persons) ||
                network_produce(&e->network, kind, f->product, f->tile, &words) != 0)
                return EDGED_ERR_UNAVAILABLE;
            f->bytes = (const uint8_t *)words;
            f->tile_bytes = network_tile_words(&e->network, kind, f->product, f->tile) * 4;
            f->tile_at = 0;
        }
        const size_t left = f->tile_bytes - f->tile_at, run = left < *size - done ? left : *size - done;
        memcpy(out + done, f->bytes + f->tile_at, run);
        done += run;
        f->tile_at += run;
        if (f->tile_at == f->tile_bytes) {
            f->tile_bytes = 0;
            f->tile++;
        }
    }
    f->offset += *size;
    if (f->offset == object)
        next_object(f);
    return EDGED_OK;
}

enum edged_status flow_write(struct eval *e, const struct edged_chunk *at, const uint8_t *bytes, size_t size) {
    struct flow *f = &e->flow;

    if (flow_done(e) || at->object != f->product || at->offset != f->offset)
        return EDGED_ERR_OBJECT;
    const uint64_t object = network_object_words(&e->network, FLOW_Y, f->product, e->network.persons) * 4;
    if (size == 0 || size % 4 != 0 || size > object - f->offset)
        return EDGED_ERR_LENGTH;
    for (size_t done = 0; done < size;) {
        if (f->tile >= network_tiles(&e->network, FLOW_Y, f->product, e->network.persons))
            return EDGED_ERR_UNAVAILABLE;
        const size_t tile = network_tile_words(&e->network, FLOW_Y, f->product, f->tile) * 4;
        const size_t left = tile - f->tile_at, run = left < size - done ? left : size - done;
        network_accept(&e->network, f->product, f->tile_at, bytes + done, run);
        done += run;
        f->tile_at += run;
        if (f->tile_at == tile) {
            if (network_consume(&e->network, f->product, f->tile) != 0)
                return EDGED_ERR_UNAVAILABLE;
            f->tile_at = 0;
            f->tile++;
        }
    }
    f->offset += size;
    if (f->offset == object)
        next_object(f);
    return EDGED_OK;
}

enum edged_status flow_map_out(struct eval *e, enum network_flow kind, uint32_t product, uint32_t persons,
                               uint8_t *to) {
    const uint32_t tiles = network_tiles(&e->network, kind, product, persons);

    for (uint32_t tile = 0; tile < tiles; tile++) {
        const size_t size = network_tile_words(&e->network, kind, product, tile) * 4;
        const uint32_t *words;
        if (network_produce(&e->network, kind, product, tile, &words) != 0)
            return EDGED_ERR_UNAVAILABLE;
        memcpy(to, words, size);
        to += size;
    }
    return EDGED_OK;
}

enum edged_status flow_map_in(struct eval *e, uint32_t product, const uint8_t *from) {
    const uint32_t tiles = network_tiles(&e->network, FLOW_Y, product, e->network.persons);

    for (uint32_t tile = 0; tile < tiles; tile++) {
        if (from != NULL) { /* NULL: placement enclave */
            const size_t size = network_tile_words(&e->network, FLOW_Y, product, tile) * 4;
            network_accept(&e->network, product, 0, from, size);
            from += size;
        }
        if (network_consume(&e->network, product, tile) != 0)
            return EDGED_ERR_UNAVAILABLE;
    }
    return EDGED_OK;
}
