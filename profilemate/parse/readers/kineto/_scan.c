/* Events of known looks off a block of text: those that fit a template, see template.py.

   Plain C that is called through ctypes: no Python in it, so one library serves every version of
   it. It reads what it is given and nothing behind it, keeps no pointer into it, and takes an event
   only if every byte of it was compared or understood; all others are left to the caller. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#define API __declspec(dllexport)
#else
#define API __attribute__((visibility("default")))
#endif

#ifndef PM_SOURCE /* a checksum of this file, so that nobody uses a library of another one */
#define PM_SOURCE 0
#endif

enum { SLOTS = 64, MOST_HOLES = 256, VALUES = 7, WIDTH = 10, MOST_PREFIXES = 16 };

/* No event is sought further than this: what a template is tried on is bounded, whatever comes. */
enum { REACH = 1 << 16 };

/* Brackets of a list in a list, and digits of an integer: Python's decoder has limits of its own. */
enum { DEEPEST = 32, LONGEST_INTEGER = 4000 };

/* What may stand in a hole, see template.py. */
enum { SKIP, WHOLE, MICROSECONDS, NAME, TEXT, ARRAY, FRACTION = 8 };

/* What becomes of an event, see found.py. */
enum { GPU, CALL, RANGE, BARE, TIMED, NOTHING };

/* Numbers of an event; those from the third on are what their group makes of them. */
enum { TS, DUR };

static const int64_t LARGEST_US = ((int64_t)1 << 62) / 1000;

typedef struct {
    uint8_t *text;              /* everything but the holes */
    int32_t cut[MOST_HOLES + 2]; /* where each literal begins in it */
    uint8_t kind[MOST_HOLES], value[MOST_HOLES];
    int32_t holes, group, gpu;
    int64_t otherwise[VALUES]; /* of numbers that the event does not tell */
    int32_t next;              /* the template that fitted after this one last time */
} template_t;

typedef struct {
    int64_t at, length; /* in the text of all names */
    uint64_t hash;
} name_t;

typedef struct {
    /* For the caller: */
    int64_t *rows[3]; /* of groups GPU, CALL and RANGE: tables of WIDTH columns of `room` rows */
    int64_t room;
    int64_t used[3];
    int64_t row;         /* the place of the next event in its block */
    int64_t first, last; /* the time from the first event to the end of the last one, ns */
    int64_t names;       /* how many there are */
    int64_t failed;      /* memory has run out */
    double hits[SLOTS];
    /* For this file: */
    template_t slot[SLOTS];
    int32_t order[SLOTS], slots, before;
    uint8_t *prefix[2][MOST_PREFIXES]; /* of ranges that are wanted, and of API calls */
    int64_t prefix_length[2][MOST_PREFIXES], prefixes[2];
    name_t *name;
    int64_t *table, table_size; /* of names by their hash, -1 for none; a power of two */
    int64_t name_room, text_used, text_room;
    uint8_t *text;
} scanner_t;

typedef struct {
    int64_t value[VALUES];
    const uint8_t *name, *name_end;
} event_t;

/* ------------------------------------------------------------------ numbers and names */

static const uint8_t *digits(const uint8_t *p, const uint8_t *end, uint64_t *value) {
    uint64_t v = 0;
    for (; p < end && (uint8_t)(*p - '0') < 10; p++) v = v * 10 + (uint64_t)(*p - '0');
    *value = v; /* right for up to 19 of them */
    return p;
}

/* Where a number ends; NULL if none that is wanted stands here. */
static const uint8_t *number(const uint8_t *p, const uint8_t *end, int kind, int64_t *out) {
    uint64_t whole, part = 0;
    const uint8_t *q = digits(p, end, &whole);
    int64_t run = q - p, after = 0;
    if (run < 1 || (run > 1 && *p == '0')) return NULL;
    if ((kind & FRACTION) && q < end && *q == '.') {
        const uint8_t *point = q++;
        q = digits(q, end, &part);
        after = q - point - 1;
        if (after < 1) return NULL;
    }
    switch (kind & 7) {
    case WHOLE:
        *out = (int64_t)whole;
        return run <= 16 ? q : NULL;
    case MICROSECONDS:
        if (run > 16 || after > 3 || (int64_t)whole >= LARGEST_US) return NULL;
        for (; after < 3; after++) part *= 10;
        *out = (int64_t)(whole * 1000 + part);
        return q;
    default:
        return run <= LONGEST_INTEGER ? q : NULL;
    }
}

static uint64_t word(const uint8_t *p) {
    uint64_t w;
    memcpy(&w, p, 8);
    return w;
}

/* Whether a text is free of backslashes and control characters. Of quotes it is. */
static int is_plain(const uint8_t *p, const uint8_t *end) {
    const uint64_t ones = ~(uint64_t)0 / 255, highs = ones * 128;
    for (; end - p >= 8; p += 8) {
        uint64_t w = word(p), x = w ^ ones * '\\';
        if (((w - ones * 32) & ~w & highs) | ((x - ones) & ~x & highs)) return 0;
    }
    for (; p < end; p++)
        if (*p < 32 || *p == '\\') return 0;
    return 1;
}

/* Where a text that is free of these ends, at its quote; NULL if none does. */
static const uint8_t *plain_text(const uint8_t *p, const uint8_t *end) {
    const uint8_t *quote = memchr(p, '"', (size_t)(end - p));
    return quote && is_plain(p, quote) ? quote : NULL;
}

/* Where a number, a word or a text in a list ends; NULL if it needs a decoder. */
static const uint8_t *element(const uint8_t *p, const uint8_t *end) {
    static const char *const WORDS[] = {"true", "false", "null"};
    int64_t value, left = end - p;
    if (left > 0 && *p == '"') return (p = plain_text(p + 1, end)) ? p + 1 : NULL;
    for (int i = 0; i < 3; i++) {
        int64_t n = (int64_t)strlen(WORDS[i]);
        if (left >= n && !memcmp(p, WORDS[i], (size_t)n)) return p + n;
    }
    return number(p + (left > 0 && *p == '-'), end, SKIP | FRACTION, &value);
}

static const uint8_t *blanks(const uint8_t *p, const uint8_t *end) {
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
    return p;
}

/* Where a list of numbers, words, texts and such lists ends; NULL if it needs a decoder. */
static const uint8_t *list(const uint8_t *p, const uint8_t *end) {
    int depth = 0;
    for (int first = 1;;) { /* here stands an element, or the end of an empty list */
        if (p < end && *p == '[' && depth < DEEPEST) {
            p = blanks(p + 1, end), depth++, first = 1;
            continue;
        }
        if (!depth) return NULL;
        if (!(first && p < end && *p == ']')) {
            if (!(p = element(p, end))) return NULL;
            p = blanks(p, end);
        }
        for (; p < end && *p == ']'; p = blanks(p, end)) {
            p++;
            if (!--depth) return p;
        }
        if (p == end || *p != ',') return NULL;
        p = blanks(p + 1, end), first = 0;
    }
}

static uint64_t hash_of(const uint8_t *p, int64_t length) {
    const uint64_t odd = 0x9E3779B97F4A7C15u;
    uint64_t h = (uint64_t)length * odd, tail = 0;
    for (; length >= 8; p += 8, length -= 8) {
        h = (h ^ word(p)) * odd;
        h ^= h >> 29;
    }
    memcpy(&tail, p, (size_t)length);
    h = (h ^ tail) * odd;
    return h ^ h >> 32;
}

static int grow(void **block, int64_t *room, int64_t needed, int64_t size) {
    int64_t more = *room ? *room : 64;
    while (more < needed) more *= 2;
    if (more == *room) return 1;
    void *larger = realloc(*block, (size_t)(more * size));
    if (!larger) return 0;
    *block = larger, *room = more;
    return 1;
}

static int rehash(scanner_t *s) {
    int64_t size = s->table_size ? 2 * s->table_size : 256;
    int64_t *table = malloc((size_t)size * sizeof *table);
    if (!table) return 0;
    memset(table, 0xFF, (size_t)size * sizeof *table);
    for (int64_t i = 0; i < s->names; i++) {
        int64_t at = (int64_t)(s->name[i].hash & (uint64_t)(size - 1));
        while (table[at] >= 0) at = (at + 1) & (size - 1);
        table[at] = i;
    }
    free(s->table);
    s->table = table, s->table_size = size;
    return 1;
}

/* The number of a name: -1 if it needs a decoder, -2 if memory has run out. */
static int64_t intern(scanner_t *s, const uint8_t *p, int64_t length, int checked) {
    if (2 * (s->names + 1) > s->table_size && !rehash(s)) return -2;
    uint64_t hash = hash_of(p, length);
    int64_t at = (int64_t)(hash & (uint64_t)(s->table_size - 1));
    for (; s->table[at] >= 0; at = (at + 1) & (s->table_size - 1)) {
        const name_t *name = s->name + s->table[at];
        if (name->hash == hash && name->length == length &&
            !memcmp(s->text + name->at, p, (size_t)length))
            return s->table[at];
    }
    if (!checked && !is_plain(p, p + length)) return -1;
    if (!grow((void **)&s->name, &s->name_room, s->names + 1, sizeof *s->name) ||
        !grow((void **)&s->text, &s->text_room, s->text_used + length + 1, 1))
        return -2;
    memcpy(s->text + s->text_used, p, (size_t)length);
    s->name[s->names] = (name_t){s->text_used, length, hash};
    s->text_used += length;
    s->table[at] = s->names;
    return s->names++;
}

/* ------------------------------------------------------------------ events */

/* Where an event that fits a template ends, NULL if it does not fit. */
static const uint8_t *fit(const template_t *t, const uint8_t *p, const uint8_t *end, event_t *e) {
    memcpy(e->value, t->otherwise, sizeof e->value);
    e->name = e->name_end = p;
    for (int32_t h = 0;; h++) {
        int64_t n = t->cut[h + 1] - t->cut[h];
        if (end - p < n || memcmp(p, t->text + t->cut[h], (size_t)n)) return NULL;
        p += n;
        if (h == t->holes) return p;
        int64_t value = 0;
        switch (t->kind[h]) {
        case NAME:
            e->name = p;
            p = e->name_end = memchr(p, '"', (size_t)(end - p));
            break;
        case TEXT:
            p = plain_text(p, end);
            break;
        case ARRAY:
            p = list(p, end);
            break;
        default:
            p = number(p, end, t->kind[h], &value);
            if ((t->kind[h] & 7) != SKIP) e->value[t->value[h]] = value;
        }
        if (!p) return NULL;
    }
}

static int begins(const scanner_t *s, int which, const event_t *e) {
    for (int64_t i = 0; i < s->prefixes[which]; i++) {
        int64_t n = s->prefix_length[which][i];
        if (e->name_end - e->name >= n && !memcmp(e->name, s->prefix[which][i], (size_t)n)) return 1;
    }
    return 0;
}

static void put(scanner_t *s, int group, const int64_t *values, int width) {
    int64_t *at = s->rows[group] + s->used[group]++;
    *at = s->row;
    for (int i = 0; i < width; i++) at[(i + 1) * s->room] = values[i];
}

/* Keep what is wanted of an event; whether it could be understood. */
static int keep(scanner_t *s, const template_t *t, const event_t *e, const uint8_t *text) {
    int group = t->group;
    const int64_t *v = e->value;
    int64_t length = e->name_end - e->name, name = 0, start = v[TS];
    int64_t end = start + (v[DUR] > 0 ? v[DUR] : 0);
    if (group == BARE) group = begins(s, 1, e) ? CALL : RANGE;
    if (group == GPU || group == CALL) {
        name = intern(s, e->name, length, 0);
        if (name == -2) s->failed = 1;
        if (name < 0) return 0;
    } else if (!is_plain(e->name, e->name_end)) {
        return 0;
    }
    if (group == NOTHING) return 1;
    if (start < s->first) s->first = start;
    if (end > s->last) s->last = end;
    if (group == GPU) {
        put(s, GPU, (int64_t[]){start, end, v[2], v[3], v[4], v[5], v[6], t->gpu, name}, 9);
    } else if (group == CALL) {
        put(s, CALL, (int64_t[]){start, end - start, v[2], v[3], v[4], name}, 6);
    } else if (group == RANGE && begins(s, 0, e)) {
        int64_t at = e->name - text;
        put(s, RANGE, (int64_t[]){start, v[DUR], v[2], v[3], at, at + length}, 6);
    }
    return 1;
}

/* Take events from `begin` on; return where the first one begins that was not taken.

   An event is whole, and nothing but one, if what stands between two events follows it: a bracket,
   `gap` bytes less two, and the next one's bracket. */
API int64_t pm_scan(scanner_t *s, const uint8_t *text, int64_t begin, int64_t end,
                    const uint8_t *between, int64_t gap) {
    const uint8_t *p = text + begin, *last = text + end;
    event_t e;
    while (s->used[GPU] < s->room && s->used[CALL] < s->room && s->used[RANGE] < s->room) {
        const uint8_t *q = NULL, *stop = last - p > REACH ? p + REACH : last;
        int32_t likely = s->slot[s->before].next, slot = likely, i = 0;
        if (s->slots) q = fit(s->slot + likely, p, stop, &e);
        while (!q && i < s->slots) {
            slot = s->order[i++];
            if (slot != likely) q = fit(s->slot + slot, p, stop, &e);
        }
        if (!q || stop - q < gap - 1 || memcmp(q, between + 1, (size_t)(gap - 1))) break;
        if (!keep(s, s->slot + slot, &e, text)) break;
        if (i > 1) s->order[i - 1] = s->order[i - 2], s->order[i - 2] = slot;
        s->slot[s->before].next = slot;
        s->before = slot;
        s->hits[slot] += 1;
        s->row++;
        p = q + gap - 2;
    }
    return p - text;
}

/* ------------------------------------------------------------------ what a scanner knows */

API uint32_t pm_source(void) { return PM_SOURCE; }

API void pm_free(scanner_t *s) {
    if (!s) return;
    for (int i = 0; i < s->slots; i++) free(s->slot[i].text);
    for (int which = 0; which < 2; which++)
        for (int i = 0; i < s->prefixes[which]; i++) free(s->prefix[which][i]);
    for (int i = 0; i < 3; i++) free(s->rows[i]);
    free(s->name), free(s->table), free(s->text), free(s);
}

/* A scanner with tables of so many rows; NULL if there is no memory for it. */
API scanner_t *pm_new(int64_t room) {
    scanner_t *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->room = room, s->first = INT64_MAX, s->last = INT64_MIN;
    for (int i = 0; i < 3; i++)
        if (!(s->rows[i] = malloc((size_t)(WIDTH * room) * sizeof **s->rows))) {
            pm_free(s);
            return NULL;
        }
    return s;
}

static uint8_t *copied(const uint8_t *text, int64_t length) {
    uint8_t *copy = malloc((size_t)length + 1);
    if (copy) memcpy(copy, text, (size_t)length);
    return copy;
}

/* Names that begin like this are of ranges that are wanted (0), or of API calls (1). */
API int pm_prefix(scanner_t *s, int which, const uint8_t *text, int64_t length) {
    int64_t i = s->prefixes[which];
    if (i == MOST_PREFIXES || !(s->prefix[which][i] = copied(text, length))) return 0;
    s->prefix_length[which][i] = length;
    s->prefixes[which]++;
    return 1;
}

/* Put a template into a slot, which is one that has been used or the first that has not. Its
   literals are in `text`, each from `cut[i]` to `cut[i + 1]`; `value` says which number a hole is. */
API int pm_template(scanner_t *s, int32_t slot, const uint8_t *text, const int32_t *cut,
                    const uint8_t *kind, const uint8_t *value, int32_t holes, int32_t group,
                    int32_t gpu, const int64_t *otherwise) {
    if (slot < 0 || slot > s->slots || slot >= SLOTS || holes > MOST_HOLES) return 0;
    for (int32_t h = 0; h < holes; h++)
        if (value[h] >= VALUES) return 0;
    uint8_t *copy = copied(text, cut[holes + 1]);
    if (!copy) return 0;
    template_t *t = s->slot + slot;
    if (slot == s->slots) {
        t->next = slot;
        s->order[s->slots++] = slot;
    }
    free(t->text);
    t->text = copy, t->holes = holes, t->group = group, t->gpu = gpu;
    memcpy(t->cut, cut, (size_t)(holes + 2) * sizeof *cut);
    memcpy(t->kind, kind, (size_t)holes);
    memcpy(t->value, value, (size_t)holes);
    memcpy(t->otherwise, otherwise, sizeof t->otherwise);
    s->hits[slot] = 1;
    return 1;
}

/* The number of a name that was decoded elsewhere; negative if memory has run out. */
API int64_t pm_number(scanner_t *s, const uint8_t *text, int64_t length) {
    return intern(s, text, length, 1);
}

/* The text of a name, and how long it is; it moves when there are more names. */
API const uint8_t *pm_name(const scanner_t *s, int64_t number, int64_t *length) {
    *length = s->name[number].length;
    return s->text + s->name[number].at;
}
