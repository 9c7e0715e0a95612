"""What the words of a page mean, for whoever finds it a year later."""

from __future__ import annotations

GLOSSARY = (
    ("Artifact", "One converted model of the bundle: a file format and a precision."),
    ("Source", "The trained network the artifacts were made of. Every gate limits a difference from it."),
    ("Golden frames", "Real frames inside the bundle, each with what the source made of it at conversion."),
    ("Gate", "A limit on a difference from the source. An artifact that breaks one is refused at conversion."),
    ("Logit error", "Largest absolute difference of the network's outputs over their range; 1 is the whole range."),
    ("SQNR", "Signal to quantization noise ratio of the network's outputs, in dB; 200 dB stands for equal outputs."),
    ("Mask agreement", "Share of the pixels of a frame that have the same class in both masks; 1 is all of them."),
    ("Dice", "Overlap of two masks, 2 |A and B| / (|A| + |B|); 1 is the same mask, 0 nothing in common."),
    ("Dice drop", "The source's Dice against the reference masks minus the artifact's, on the same frames."),
    (
        "HD95",
        "95th percentile Hausdorff distance of the outlines of two masks: 95 % of either outline lie within it of the "
        "other. In pixels, or over the diagonal of the frame.",
    ),
    ("Area difference", "Pixels of foreground gained or lost, over those of the source."),
    ("Displacement", "How far the centre of the foreground has moved: what a wrong resize does to all frames alike."),
    ("False positives", "Share of a frame's pixels that are foreground only for the artifact."),
    ("Head circumference", "Of the ellipse through the outline of the largest structure, in mm."),
    (
        "95 % interval",
        "Bootstrap interval of the mean that draws whole exams; needs exam ids, so golden frames have none.",
    ),
    ("p50, p90, p99", "Half, 90 % and 99 % of the samples are at most this long."),
    ("Layers in int8", "Layers that the engine itself says it computes with 8-bit integers."),
)
