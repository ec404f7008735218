/* The compiled scanner under a fuzzer: whatever it is given, it stays within what it was given.

   With Clang: clang -fsanitize=fuzzer,address,undefined -DLIBFUZZER fuzz_scan.c. With any other
   compiler `main` mutates events itself: ./fuzz_scan ROUNDS SEED. */

#include <stdio.h>

#include "../../../profilemate/parse/readers/kineto/_scan.c"

static const uint8_t *input, *input_end;

static int next(void) { return input < input_end ? *input++ : 0; }

static void check(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "broken: %s\n", what);
        abort();
    }
}

/* A template out of the input: literals that are pieces of it, and holes of all kinds. */
static void teach(scanner_t *s, const uint8_t *text, int64_t length) {
    uint8_t kind[MOST_HOLES], value[MOST_HOLES], *literals;
    int32_t cut[MOST_HOLES + 2], holes = next() % 12, used = 0;
    int64_t otherwise[VALUES] = {next(), next() - 1, -1, 3, 0, 0, 0};
    literals = malloc((size_t)(64 * (holes + 1)));
    for (int32_t h = 0; h <= holes; h++) {
        int64_t size = next() % 64, at = length ? (next() * 7) % length : 0;
        if (size > length - at) size = length - at;
        memcpy(literals + used, text + at, (size_t)size);
        cut[h] = used;
        used += (int32_t)size;
        cut[h + 1] = used;
        if (h == holes) break;
        int which = next() % 9; /* the three numbers, with and without a fraction, and the rest */
        kind[h] = (uint8_t)(which < 6 ? which % 3 | (which < 3 ? 0 : FRACTION) : which - 6 + NAME);
        value[h] = (uint8_t)(next() % VALUES);
    }
    pm_template(s, next() % (s->slots + 1), literals, cut, kind, value, holes, next() % 6,
                next() % 3, otherwise);
    free(literals);
}

/* The template of an event that is spelled with holes: % and n, t, w, f, q, a or s. */
static void spell(scanner_t *s, int32_t group, const char *pattern) {
    uint8_t kind[MOST_HOLES], value[MOST_HOLES], literals[512];
    int32_t cut[MOST_HOLES + 2] = {0}, holes = 0, used = 0, wanted = 2;
    int64_t otherwise[VALUES] = {0, group == RANGE ? -1 : 0, -1, -1, 0, 0, 0};
    for (; *pattern; pattern++) {
        if (*pattern != '%') {
            literals[used++] = (uint8_t)*pattern;
            continue;
        }
        switch (*++pattern) {
        case 'n': kind[holes] = NAME; break;
        case 't': kind[holes] = MICROSECONDS | FRACTION; break;
        case 'w': kind[holes] = WHOLE; break;
        case 'f': kind[holes] = SKIP | FRACTION; break;
        case 'q': kind[holes] = TEXT; break;
        case 'a': kind[holes] = ARRAY; break;
        default: kind[holes] = SKIP;
        }
        value[holes] = 0;
        if (*pattern == 't') value[holes] = holes > 1 && value[holes - 1] == TS ? DUR : TS;
        if (*pattern == 'w') value[holes] = (uint8_t)wanted++;
        cut[++holes] = used;
    }
    cut[holes + 1] = used;
    check(pm_template(s, s->slots, literals, cut, kind, value, holes, group, 0, otherwise),
          "a template is taken");
}

static void scan_all(scanner_t *s, const uint8_t *text, int64_t length) {
    static const char *const BETWEEN[] = {"},{", "},\n  {", "} , {"};
    const char *between = BETWEEN[next() % 3];
    int64_t gap = (int64_t)strlen(between), at = 0;
    s->row = 0;
    while (at < length) {
        int64_t before = at;
        at = pm_scan(s, text, at, length, (const uint8_t *)between, gap);
        check(at >= before && at <= length, "a scan goes on and ends in the text");
        check(!s->failed, "there is memory");
        int full = 0;
        for (int i = 0; i < 3; i++) {
            check(s->used[i] >= 0 && s->used[i] <= s->room, "rows stay in their table");
            full |= s->used[i] == s->room;
        }
        for (int64_t i = 0; i < s->used[RANGE]; i++) {
            int64_t begin = s->rows[RANGE][5 * s->room + i], end = s->rows[RANGE][6 * s->room + i];
            check(begin >= 0 && begin <= end && end <= length, "a name lies in the text");
            for (int64_t c = begin; c < end; c++)
                check(text[c] >= 32 && text[c] != '"' && text[c] != '\\', "a name is plain");
        }
        for (int64_t i = 0; i < s->used[GPU]; i++) {
            int64_t number = s->rows[GPU][9 * s->room + i], size;
            check(number >= 0 && number < s->names, "a name has a number");
            const uint8_t *name = pm_name(s, number, &size);
            check(size >= 0 && (!size || name[size - 1] != '"'), "a name ends at its quote");
        }
        memset(s->used, 0, sizeof s->used);
        if (full) continue;
        if (next() % 4 == 0) teach(s, text + at, length - at);
        if (next() % 4 == 0) check(pm_number(s, text + at, (length - at) % 9) >= 0, "a number");
        const uint8_t *open = memchr(text + at + 1, '{', (size_t)(length - at - 1));
        if (!open) break;
        at = open - text;
        s->row++;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input = data, input_end = data + (size < 64 ? size : 64);
    scanner_t *s = pm_new(1 + next() % 5);
    if (!s) return 0;
    pm_prefix(s, 0, (const uint8_t *)"pm1.", 4);
    pm_prefix(s, 1, (const uint8_t *)"cu", 2);
    spell(s, GPU, "{\"ph\":\"X\",\"cat\":\"kernel\",\"name\":\"%n\",\"ts\":%t,\"dur\":%t,"
                  "\"args\":{\"stream\":%w,\"correlation\":%w,\"x\":%f,\"grid\":%a}}");
    spell(s, BARE, "{\"name\":\"%n\",\"ph\":\"X\",\"ts\":%t,\"dur\":%t,\"pid\":%w,\"tid\":%w}");
    spell(s, RANGE, "{\"ph\":\"i\",\"cat\":\"a\",\"name\":\"%n\",\"ts\":%t,\"note\":\"%q\"}");
    spell(s, NOTHING, "{\"ph\":\"f\",\"id\":%s}");
    /* In a block of its own, so that a byte too many is seen. */
    int64_t length = input_end == data + size ? 0 : (int64_t)(size - 64);
    uint8_t *text = malloc((size_t)length + (length == 0));
    memcpy(text, input_end, (size_t)length);
    scan_all(s, text, length);
    free(text);
    pm_free(s);
    return 0;
}

#ifndef LIBFUZZER

static uint64_t state;

static uint64_t draw(uint64_t below) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state % below;
}

static size_t events(char *out, size_t room) {
    static const char *const GAP[] = {",", ",\n  ", " , "};
    static const char *const LIST[] = {"1", "[[]]", "-0.5, [1 ,\"a\"]", "null,true,[false],\"\""};
    const char *gap = GAP[draw(3)];
    size_t used = 0;
    for (int i = (int)draw(9); i >= 0 && used + 400 < room; i--) {
        char *at = out + used;
        unsigned n = (unsigned)draw(1000000);
        switch (draw(4)) {
        case 0:
            used += (size_t)sprintf(at,
                                    "{\"ph\":\"X\",\"cat\":\"kernel\",\"name\":\"void k<%u>(int*)\",\"ts\":%u.%03u,"
                                    "\"dur\":%u,\"args\":{\"stream\":7,\"correlation\":%u,\"x\":%u.5,"
                                    "\"grid\":[%u,%s]}}",
                                    n % 7, n, n % 1000, n % 99, n, n % 12, n % 4096,
                                    LIST[draw(4)]);
            break;
        case 1:
            used += (size_t)sprintf(at, "{\"name\":\"cuda%u\",\"ph\":\"X\",\"ts\":%u,\"dur\":2,\"pid\":1,\"tid\":%u}", n % 5, n, n);
            break;
        case 2:
            used += (size_t)sprintf(at, "{\"ph\":\"i\",\"cat\":\"a\",\"name\":\"pm1.step n=%u\",\"ts\":%u,\"note\":\"n%u\"}", n, n, n);
            break;
        default:
            used += (size_t)sprintf(at, "{\"ph\":\"f\",\"id\":%u}", n);
        }
        used += (size_t)sprintf(out + used, "%s", gap);
    }
    return used;
}

static size_t mutate(uint8_t *data, size_t size) {
    static const char INTERESTING[] = "\"\\{}[],:.0123456789eE- \n\t\x01\xff";
    for (uint64_t times = draw(5); times && size > 70; times--) {
        size_t at = 64 + draw(size - 64), run = draw(40);
        if (at + run > size) run = size - at;
        switch (draw(5)) {
        case 0: data[at] = (uint8_t)draw(256); break;
        case 1: data[at] = (uint8_t)INTERESTING[draw(sizeof INTERESTING - 1)]; break;
        case 2: size = at; break;
        case 3: memmove(data + at, data + at + run, size - at - run), size -= run; break;
        default: memmove(data + at, data + 64 + draw(at - 63), run);
        }
    }
    return size;
}

int main(int count, char **arguments) {
    long rounds = count > 1 ? atol(arguments[1]) : 100000;
    state = count > 2 ? (uint64_t)atol(arguments[2]) * 2654435761u + 1 : 1;
    for (long i = 0; i < rounds; i++) {
        uint8_t data[64 + 4096];
        for (int j = 0; j < 64; j++) data[j] = (uint8_t)draw(256);
        LLVMFuzzerTestOneInput(data, mutate(data, 64 + events((char *)data + 64, 4000)));
    }
    printf("%ld rounds\n", rounds);
    return 0;
}

#endif
