/* See edgeseg_preprocess.h; docs/preprocess.md has the formulas in words. */
#include "edgeseg_preprocess.h"

#include <math.h>
#include <string.h>

enum { COEFFICIENT_BITS = 11, COEFFICIENT_ONE = 1 << COEFFICIENT_BITS };

/* The two source pixels of an output pixel of a bilinear resize; the coefficients are shares of 2048. */
typedef struct {
    int first, second, first_coefficient, second_coefficient;
} tap;

/* The same for logits: `share` is the second one's. */
typedef struct {
    int first, second;
    float share;
} logit_tap;

/* One source pixel's share of an output pixel of an area resize. */
typedef struct {
    int target, source;
    float share;
} piece;

/* How one axis is resized. `halved`: the other axis and this one are halved exactly. */
typedef struct {
    int from, to;
    double scale;
} axis;

/* The scan area as rows of 8-bit pixels, gray where the network is; `gray` holds one such row. */
typedef struct {
    const edgeseg_frame *frame;
    edgeseg_box area;
    int channels;
    uint8_t *gray;
} rows_of_area;

/* Where the rows of the network's input go. */
typedef struct {
    const edgeseg_network *network;
    float *values;
    int channels; /* of what is stored; 1 for a network of 3 means: three times */
} network_input;

static axis make_axis(int from, int to) {
    axis made = {from, to, 1.0 / ((double)to / from)};
    return made;
}

static int whole_number(double scale) { return (int)lrint(scale); }

static int is_whole(double scale) { return fabs(scale - whole_number(scale)) < 2.220446049250313e-16; }

static int is_halved(axis x, axis y) {
    return is_whole(x.scale) && is_whole(y.scale) && whole_number(x.scale) == 2 && whole_number(y.scale) == 2;
}

static int clamped(int value, int low, int high) { return value < low ? low : value > high ? high : value; }

static tap make_tap(axis a, int first, float share) {
    tap made = {clamped(first, 0, a.from - 1), clamped(first + 1, 0, a.from - 1),
                (int)lrintf((1.0f - share) * COEFFICIENT_ONE), (int)lrintf(share * COEFFICIENT_ONE)};
    return made;
}

/* Half-pixel centres; an area resize that enlarges is bilinear too, with other shares. Beyond the border a column has
 * the border's pixel with all the weight, a row has it twice with the weights it would have had: OpenCV's way. */
static tap make_linear_tap(axis a, int target, int is_column, int enlarging) {
    float position = (float)((target + 0.5) * a.scale - 0.5);
    int first = (int)floorf(position);
    float share = position - (float)first;
    if (enlarging) {
        first = (int)floor(target * a.scale);
        share = (float)((target + 1) - (first + 1) * ((double)a.to / a.from));
        share = share <= 0 ? 0 : share - floorf(share);
    }
    if (is_column && first < 0) first = 0, share = 0;
    if (is_column && first >= a.from - 1) first = a.from - 1, share = 0;
    return make_tap(a, first, share);
}

static logit_tap make_logit_tap(axis a, int target) {
    double position = (target + 0.5) * ((double)a.from / a.to) - 0.5;
    int first = (int)floor(position);
    logit_tap made = {clamped(first, 0, a.from - 1), clamped(first + 1, 0, a.from - 1), (float)(position - first)};
    return made;
}

static uint8_t rounded(float value) { return (uint8_t)clamped((int)lrintf(value), 0, 255); }

static const uint8_t *row_of(const rows_of_area *source, int y) {
    const edgeseg_frame *frame = source->frame;
    const uint8_t *row = frame->pixels + (size_t)(source->area.top + y) * frame->stride +
                         (size_t)source->area.left * (size_t)frame->channels;
    if (frame->channels == source->channels) return row;
    for (int x = 0; x < source->area.width; x++, row += 3)
        source->gray[x] = (uint8_t)((row[0] * 9798 + row[1] * 19235 + row[2] * 3735 + (1 << 14)) >> 15);
    return source->gray;
}

static void put(const network_input *input, int y, int x, int channel, uint8_t value) {
    const edgeseg_network *net = input->network;
    size_t pixel = (size_t)y * (size_t)net->width + (size_t)x;
    size_t plane = (size_t)net->height * (size_t)net->width;
    int copies = net->channels / input->channels;
    for (int c = channel; c < channel + copies; c++)
        input->values[net->nhwc ? pixel * (size_t)net->channels + (size_t)c : plane * (size_t)c + pixel] = value;
}

static void copy_rows(const rows_of_area *source, const network_input *input) {
    for (int y = 0; y < source->area.height; y++) {
        const uint8_t *row = row_of(source, y);
        for (int x = 0; x < source->area.width; x++)
            for (int c = 0; c < source->channels; c++) put(input, y, x, c, row[x * source->channels + c]);
    }
}

static void stretch_row(const uint8_t *row, const tap *columns, int width, int channels, int *line) {
    for (int x = 0; x < width; x++)
        for (int c = 0; c < channels; c++)
            *line++ = row[columns[x].first * channels + c] * columns[x].first_coefficient +
                      row[columns[x].second * channels + c] * columns[x].second_coefficient;
}

/* Two lines hold the last two source rows that were resized to the output's width, with 11 more bits. */
static void resize_linear(const rows_of_area *source, axis ax, axis ay, int enlarging, const network_input *input,
                          void *work) {
    int n = source->channels, width = ax.to * n, held[2] = {-1, -1};
    tap *columns = work;
    int *line[2] = {(int *)(columns + ax.to), (int *)(columns + ax.to) + width};
    for (int x = 0; x < ax.to; x++) columns[x] = make_linear_tap(ax, x, 1, enlarging);
    for (int y = 0; y < ay.to; y++) {
        tap t = make_linear_tap(ay, y, 0, enlarging);
        int wanted[2] = {t.first, t.second};
        if (held[0] != wanted[0] && held[1] == wanted[0]) {
            int *swapped = line[0];
            line[0] = line[1], line[1] = swapped, held[0] = held[1], held[1] = -1;
        }
        for (int k = 0; k < 2; k++) {
            if (held[k] == wanted[k]) continue;
            stretch_row(row_of(source, wanted[k]), columns, ax.to, n, line[k]);
            held[k] = wanted[k];
        }
        for (int x = 0; x < ax.to; x++)
            for (int c = 0; c < n; c++) {
                int above = (t.first_coefficient * (line[0][x * n + c] >> 4)) >> 16;
                int below = (t.second_coefficient * (line[1][x * n + c] >> 4)) >> 16;
                put(input, y, x, c, (uint8_t)((above + below + 2) >> 2));
            }
    }
}

/* Sums of whole pixels. Halving rounds its mean up from one half, every other one to the even number. */
static void resize_blocks(const rows_of_area *source, axis ax, axis ay, const network_input *input, void *work) {
    int n = source->channels, wide = whole_number(ax.scale), high = whole_number(ay.scale), *sums = work;
    float share = 1.0f / (float)(wide * high);
    int halved = is_halved(ax, ay);
    for (int y = 0; y < ay.to; y++) {
        memset(sums, 0, (size_t)(ax.to * n) * sizeof *sums);
        for (int k = 0; k < high; k++) {
            const uint8_t *row = row_of(source, y * high + k);
            for (int x = 0; x < ax.to * wide; x++)
                for (int c = 0; c < n; c++) sums[x / wide * n + c] += row[x * n + c];
        }
        for (int x = 0; x < ax.to; x++)
            for (int c = 0; c < n; c++) {
                int sum = sums[x * n + c];
                put(input, y, x, c, halved ? (uint8_t)((sum + 2) >> 2) : rounded((float)sum * share));
            }
    }
}

/* The pieces of one output pixel along an axis; at most `scale` rounded up plus one. */
static int pieces_of(axis a, int target, piece *pieces) {
    double start = target * a.scale, end = start + a.scale;
    double size = a.scale < a.from - start ? a.scale : a.from - start;
    int count = 0, first = (int)ceil(start), last = (int)floor(end);
    if (last > a.from - 1) last = a.from - 1;
    if (first > last) first = last;
    if (first - start > 1e-3) pieces[count++] = (piece){target, first - 1, (float)((first - start) / size)};
    for (int k = first; k < last; k++) pieces[count++] = (piece){target, k, (float)(1.0 / size)};
    if (end - last > 1e-3) {
        double rest = end - last < 1.0 ? end - last : 1.0;
        pieces[count++] = (piece){target, last, (float)((rest < size ? rest : size) / size)};
    }
    return count;
}

static int most_pieces(axis a) { return (int)ceil(a.scale) + 2; }

static void resize_area(const rows_of_area *source, axis ax, axis ay, const network_input *input, void *work) {
    int n = source->channels, width = ax.to * n, count = 0;
    float *line = work, *sums = line + width;
    piece *across = (piece *)(sums + width), *down = across + (size_t)ax.to * (size_t)most_pieces(ax);
    for (int x = 0; x < ax.to; x++) count += pieces_of(ax, x, across + count);
    for (int y = 0; y < ay.to; y++) {
        int rows = pieces_of(ay, y, down);
        for (int k = 0; k < rows; k++) {
            const uint8_t *row = row_of(source, down[k].source);
            for (int i = 0; i < width; i++) line[i] = 0;
            for (int p = 0; p < count; p++)
                for (int c = 0; c < n; c++)
                    line[across[p].target * n + c] += (float)row[across[p].source * n + c] * across[p].share;
            for (int i = 0; i < width; i++) {
                float weighted = down[k].share * line[i];
                sums[i] = k == 0 ? weighted : sums[i] + weighted;
            }
        }
        for (int x = 0; x < ax.to; x++)
            for (int c = 0; c < n; c++) put(input, y, x, c, rounded(sums[x * n + c]));
    }
}

static int side_is_bad(int side) { return side < 1 || side > EDGESEG_LARGEST_SIDE; }

static int area_is_bad(edgeseg_box area, int height, int width) {
    return area.left < 0 || area.top < 0 || area.width < 1 || area.height < 1 || area.width > width ||
           area.height > height || area.left > width - area.width || area.top > height - area.height;
}

static int network_is_bad(const edgeseg_network *net) {
    return !net || side_is_bad(net->height) || side_is_bad(net->width) || (net->channels != 1 && net->channels != 3) ||
           (net->interpolation != EDGESEG_LINEAR && net->interpolation != EDGESEG_AREA);
}

static size_t gray_bytes(edgeseg_box area) { return ((size_t)area.width + 3) / 4 * 4; }

size_t edgeseg_input_work(edgeseg_box area, const edgeseg_network *network) {
    if (network_is_bad(network) || area_is_bad(area, EDGESEG_LARGEST_SIDE * 2, EDGESEG_LARGEST_SIDE * 2)) return 0;
    axis ax = make_axis(area.width, network->width), ay = make_axis(area.height, network->height);
    size_t lines = 2 * (size_t)network->width * (size_t)network->channels * sizeof(float);
    size_t columns = (size_t)network->width * sizeof(tap), pieces = 0;
    if (network->interpolation == EDGESEG_AREA && ax.scale >= 1 && ay.scale >= 1)
        pieces = ((size_t)network->width * (size_t)most_pieces(ax) + (size_t)most_pieces(ay)) * sizeof(piece);
    return gray_bytes(area) + lines + (pieces > columns ? pieces : columns);
}

edgeseg_status edgeseg_to_input(const edgeseg_frame *frame, edgeseg_box area, const edgeseg_network *network,
                                float *input, void *work, size_t work_bytes) {
    if (!frame || !frame->pixels || !input || !work || network_is_bad(network) || side_is_bad(frame->height) ||
        side_is_bad(frame->width) || (frame->channels != 1 && frame->channels != 3) ||
        area_is_bad(area, frame->height, frame->width))
        return EDGESEG_BAD_ARGUMENT;
    if (work_bytes < edgeseg_input_work(area, network)) return EDGESEG_WORK_TOO_SMALL;
    /* Gray before the resize, more channels after it: less to resize either way, and what edgeseg does. */
    int stored = frame->channels < network->channels ? frame->channels : network->channels;
    rows_of_area source = {frame, area, stored, work};
    network_input target = {network, input, stored};
    axis ax = make_axis(area.width, network->width), ay = make_axis(area.height, network->height);
    void *rest = (uint8_t *)work + gray_bytes(area);
    int shrinking = ax.scale >= 1 && ay.scale >= 1;
    if (ax.from == ax.to && ay.from == ay.to)
        copy_rows(&source, &target);
    else if (is_halved(ax, ay))
        resize_blocks(&source, ax, ay, &target, rest);
    else if (network->interpolation == EDGESEG_LINEAR || !shrinking)
        resize_linear(&source, ax, ay, network->interpolation == EDGESEG_AREA, &target, rest);
    else if (is_whole(ax.scale) && is_whole(ay.scale))
        resize_blocks(&source, ax, ay, &target, rest);
    else
        resize_area(&source, ax, ay, &target, rest);
    return EDGESEG_OK;
}

static float logit(const edgeseg_logits *l, int c, int y, int x) {
    size_t pixel = (size_t)y * (size_t)l->width + (size_t)x, plane = (size_t)l->height * (size_t)l->width;
    return l->values[l->nhwc ? pixel * (size_t)l->channels + (size_t)c : plane * (size_t)c + pixel];
}

/* The share of the way from one logit to the next, rounded once. */
static float between(float first, float second, float share) { return fmaf(second - first, share, first); }

/* One row of a class's plane at the area's size. Two lines hold the last two rows at its width, `held` says which. */
static void plane_row(const edgeseg_logits *logits, int channel, logit_tap t, const logit_tap *columns, int width,
                      float *lines, int *held, float *plane) {
    int wanted[2] = {t.first, t.second};
    float *line[2] = {lines + wanted[0] % 2 * width, lines + wanted[1] % 2 * width};
    for (int k = 0; k < 2; k++) {
        if (held[wanted[k] % 2] == wanted[k]) continue;
        for (int x = 0; x < width; x++)
            line[k][x] = between(logit(logits, channel, wanted[k], columns[x].first),
                                 logit(logits, channel, wanted[k], columns[x].second), columns[x].share);
        held[wanted[k] % 2] = wanted[k];
    }
    for (int x = 0; x < width; x++) plane[x] = between(line[0][x], line[1][x], t.share);
}

static void decide(const float *plane, int channel, int only, int width, float *best, uint8_t *row) {
    for (int x = 0; x < width; x++) {
        if (only) {
            row[x] = plane[x] > 0;
        } else if (channel == 0 || plane[x] > best[x]) {
            best[x] = plane[x];
            row[x] = (uint8_t)channel;
        }
    }
}

static int all_finite(const edgeseg_logits *logits) {
    size_t count = (size_t)logits->channels * (size_t)logits->height * (size_t)logits->width;
    for (size_t i = 0; i < count; i++)
        if (!isfinite(logits->values[i])) return 0;
    return 1;
}

static int logits_are_bad(const edgeseg_logits *logits) {
    return !logits || !logits->values || logits->channels < 1 || logits->channels > 256 ||
           side_is_bad(logits->height) || side_is_bad(logits->width);
}

size_t edgeseg_mask_work(const edgeseg_logits *logits, edgeseg_box area) {
    if (logits_are_bad(logits) || area_is_bad(area, EDGESEG_LARGEST_SIDE * 2, EDGESEG_LARGEST_SIDE * 2)) return 0;
    size_t width = (size_t)area.width, channels = (size_t)logits->channels;
    return width * sizeof(logit_tap) + (2 + 2 * channels) * width * sizeof(float) + 2 * channels * sizeof(int);
}

edgeseg_status edgeseg_to_mask(const edgeseg_logits *logits, edgeseg_box area, const edgeseg_mask *mask, void *work,
                               size_t work_bytes) {
    if (logits_are_bad(logits) || !mask || !mask->pixels || !work || side_is_bad(mask->height) ||
        side_is_bad(mask->width) || area_is_bad(area, mask->height, mask->width))
        return EDGESEG_BAD_ARGUMENT;
    if (work_bytes < edgeseg_mask_work(logits, area)) return EDGESEG_WORK_TOO_SMALL;
    if (!all_finite(logits)) return EDGESEG_NOT_FINITE;
    axis ax = make_axis(logits->width, area.width), ay = make_axis(logits->height, area.height);
    size_t width = (size_t)area.width;
    logit_tap *columns = work;
    float *plane = (float *)(columns + width), *best = plane + width, *lines = best + width;
    int *held = (int *)(lines + 2 * width * (size_t)logits->channels);
    for (int x = 0; x < area.width; x++) columns[x] = make_logit_tap(ax, x);
    for (int i = 0; i < 2 * logits->channels; i++) held[i] = -1;
    for (int y = 0; y < mask->height; y++) memset(mask->pixels + (size_t)y * mask->stride, 0, (size_t)mask->width);
    for (int y = 0; y < area.height; y++) {
        uint8_t *row = mask->pixels + (size_t)(area.top + y) * mask->stride + area.left;
        logit_tap t = make_logit_tap(ay, y);
        for (int c = 0; c < logits->channels; c++) {
            plane_row(logits, c, t, columns, area.width, lines + 2 * width * (size_t)c, held + 2 * c, plane);
            decide(plane, c, logits->channels == 1, area.width, best, row);
        }
    }
    return EDGESEG_OK;
}

static int share_is_bad(double start, double size) {
    return !(start >= 0 && start < 1 && size > 0 && size <= 1 && start + size <= 1 + 1e-9);
}

static void edges(double start, double size, int pixels, int *low, int *length) {
    int first = (int)floor(start * pixels + 0.5), end = (int)floor((start + size) * pixels + 0.5);
    if (first > pixels - 1) first = pixels - 1;
    if (end > pixels) end = pixels;
    *low = first;
    *length = end > first ? end - first : 1;
}

edgeseg_status edgeseg_fixed_area(int height, int width, double left, double top, double share_width,
                                  double share_height, edgeseg_box *area) {
    if (!area || side_is_bad(height) || side_is_bad(width) || share_is_bad(left, share_width) ||
        share_is_bad(top, share_height))
        return EDGESEG_BAD_ARGUMENT;
    edges(left, share_width, width, &area->left, &area->width);
    edges(top, share_height, height, &area->top, &area->height);
    return EDGESEG_OK;
}

edgeseg_box edgeseg_whole(int height, int width) {
    edgeseg_box all = {0, 0, width, height};
    return all;
}
