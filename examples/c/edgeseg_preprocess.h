/* Frame to network input, logits to mask: edgeseg's preprocessing (docs/preprocess.md) in C99 for a device without Python.
 *
 * The same bytes as edgeseg.preprocess.to_input and to_mask; tests/examples/test_c_path.py holds it to that. No
 * dependency, no allocation, no global state: every buffer is the caller's, so any number of threads may call at once,
 * each with its own `work`. Compile with -std=c99 (or -ffp-contract=off): fused multiply-adds round differently.
 *
 *     edgeseg_network net = {256, 256, 1, EDGESEG_LINEAR, 0};
 *     edgeseg_frame frame = {pixels, 540, 800, 1, 800};
 *     edgeseg_box area;
 *     edgeseg_fixed_area(540, 800, 0.1, 0.0, 0.8, 1.0, &area);            (or edgeseg_whole, or a box of your own)
 *     edgeseg_to_input(&frame, area, &net, input, work, work_bytes);      (run the engine: input -> logits)
 *     edgeseg_to_mask(&logits, area, &mask, work, work_bytes);
 */
#ifndef EDGESEG_PREPROCESS_H
#define EDGESEG_PREPROCESS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { EDGESEG_LARGEST_SIDE = 32766 };

typedef enum {
    EDGESEG_OK = 0,
    EDGESEG_BAD_ARGUMENT = -1, /* a null pointer, a size or channel count out of range, an area outside the frame */
    EDGESEG_WORK_TOO_SMALL = -2,
    EDGESEG_NOT_FINITE = -3 /* a logit is NaN or infinite: the engine failed, there is no mask */
} edgeseg_status;

typedef enum { EDGESEG_LINEAR = 0, EDGESEG_AREA = 1 } edgeseg_interpolation;

/* Whole pixels of a frame. */
typedef struct {
    int left, top, width, height;
} edgeseg_box;

/* 8-bit pixels, rows `stride` bytes apart; 1 channel (gray) or 3 (R, G, B side by side). */
typedef struct {
    const uint8_t *pixels;
    int height, width, channels;
    size_t stride;
} edgeseg_frame;

/* `preprocess` of a bundle's manifest; `nhwc` is the layout of the artifact's input. */
typedef struct {
    int height, width, channels;
    edgeseg_interpolation interpolation;
    int nhwc;
} edgeseg_network;

/* The network's output of batch 1, [channels, height, width] or, with `nhwc`, [height, width, channels]. */
typedef struct {
    const float *values;
    int channels, height, width, nhwc;
} edgeseg_logits;

/* Class indices at the frame's own size, rows `stride` bytes apart; every pixel is written. */
typedef struct {
    uint8_t *pixels;
    int height, width;
    size_t stride;
} edgeseg_mask;

/* Shares of the frame (0 to 1) in whole pixels, as `scan_area` of the manifest without "detect". */
edgeseg_status edgeseg_fixed_area(int height, int width, double left, double top, double share_width,
                                  double share_height, edgeseg_box *area);

/* All of the frame: a manifest without `scan_area`. */
edgeseg_box edgeseg_whole(int height, int width);

/* Bytes of `work`, aligned as an int is, that the calls below need. */
size_t edgeseg_input_work(edgeseg_box area, const edgeseg_network *network);
size_t edgeseg_mask_work(const edgeseg_logits *logits, edgeseg_box area);

/* Writes channels * height * width floats, 0 to 255, to `input`: mean and std are inside the graph. */
edgeseg_status edgeseg_to_input(const edgeseg_frame *frame, edgeseg_box area, const edgeseg_network *network,
                                float *input, void *work, size_t work_bytes);

/* Pixels outside the area are background, 0. */
edgeseg_status edgeseg_to_mask(const edgeseg_logits *logits, edgeseg_box area, const edgeseg_mask *mask, void *work,
                               size_t work_bytes);

#ifdef __cplusplus
}
#endif

#endif
