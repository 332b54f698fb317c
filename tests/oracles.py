"""Slow loops, written from the papers and the release's C++, that the library's vectorised maths must equal.

Plain Python and NumPy scalars, one box at a time; nothing here imports kerasdet.
"""

import math

import numpy as np


def iou(box, other) -> np.float32:
    """Overlap over union of two xyxy boxes, in float32 like the library's; 0 without a union."""
    width = max(np.float32(0), min(box[2], other[2]) - max(box[0], other[0]))
    height = max(np.float32(0), min(box[3], other[3]) - max(box[1], other[1]))
    intersection = np.float32(width) * np.float32(height)
    area = (box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1])
    union = np.float32(area) - intersection
    return intersection / union if union > 0 else np.float32(0)


def painted_iou(box, other, *, side) -> float:
    """The same of two boxes with whole-number corners, counted on a painted square of pixels."""

    def paint(x1, y1, x2, y2):
        canvas = np.zeros((side, side), bool)
        canvas[y1:y2, x1:x2] = True
        return canvas

    one, two = paint(*box), paint(*other)
    either = np.count_nonzero(one | two)
    return np.count_nonzero(one & two) / either if either else 0.0


def encode(box, anchor, variances=(0.1, 0.1, 0.2, 0.2)) -> list[float]:
    """SSD's centre-size code of one box (arXiv:1512.02325, eq. 2)."""
    centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    anchor_x, anchor_y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
    anchor_width, anchor_height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    return [
        (centre_x - anchor_x) / anchor_width / variances[0],
        (centre_y - anchor_y) / anchor_height / variances[1],
        math.log((box[2] - box[0]) / anchor_width) / variances[2],
        math.log((box[3] - box[1]) / anchor_height) / variances[3],
    ]


def match(anchors, boxes, labels, *, threshold=0.5) -> list[int]:
    """For each anchor its object's row or -1: MatchBBox, PER_PREDICTION (bbox_util.cpp).

    The largest overlap of all free pairs first, one pair at a time, anchors in the outer
    loop; then every anchor still free takes its best object from the threshold on.
    """
    overlap = {
        (a, g): iou(anchors[a], boxes[g])
        for a in range(len(anchors))
        for g in range(len(boxes))
        if labels[g] >= 0
    }
    match_of = [-1] * len(anchors)
    waiting = [g for g in range(len(boxes)) if labels[g] >= 0]
    while waiting:
        best, pair = 1e-6, None
        for a in range(len(anchors)):
            for g in waiting:
                if match_of[a] == -1 and overlap[a, g] > best:
                    best, pair = overlap[a, g], (a, g)
        if pair is None:
            break
        match_of[pair[0]] = pair[1]
        waiting.remove(pair[1])
    for a in range(len(anchors)):
        if match_of[a] != -1:
            continue
        best = 0.0
        for g in range(len(boxes)):
            if labels[g] >= 0 and overlap[a, g] >= threshold and overlap[a, g] > best:
                best, match_of[a] = overlap[a, g], g
    return match_of


def hard_negatives(losses, positive, candidates, *, ratio=3) -> list[bool]:
    """One image's hardest negatives: pick the largest loss left, again and again (MAX_NEGATIVE)."""
    chosen = [False] * len(losses)
    for _ in range(ratio * sum(map(bool, positive))):
        left = [i for i in range(len(losses)) if candidates[i] and not chosen[i]]
        if not left:
            break
        hardest = left[0]
        for i in left:
            if losses[i] > losses[hardest]:
                hardest = i
        chosen[hardest] = True
    return chosen


def multibox(offsets, logits, target_offsets, target_classes, *, ratio=3) -> tuple[float, float]:
    """SSD's two loss terms in float64, box by box (sec. 2.2, eq. 1-3)."""
    localization = confidence = 0.0
    matched = 0
    for image in range(len(logits)):
        classes = target_classes[image]
        total = [math.log(sum(math.exp(v) for v in row)) for row in logits[image].tolist()]
        background = [total[a] - float(logits[image, a, 0]) for a in range(len(classes))]
        positive = [c > 0 for c in classes]
        negative = hard_negatives(background, positive, [c == 0 for c in classes], ratio=ratio)
        for a, c in enumerate(classes):
            if c > 0:
                matched += 1
                confidence += total[a] - float(logits[image, a, c])
                for error in offsets[image, a] - target_offsets[image, a]:
                    size = abs(float(error))
                    localization += 0.5 * size**2 if size < 1 else size - 0.5
            elif negative[a]:
                confidence += background[a]
    return (localization / matched, confidence / matched) if matched else (0.0, 0.0)


def suppress(
    boxes,
    scores,
    *,
    score_threshold=0.01,
    iou_threshold=0.45,
    max_per_class=400,
    max_detections=200,
) -> list[tuple[float, int, int]]:
    """One image's kept (score, label, box row), best first: DetectionOutput of the release."""
    kept = []
    for label in range(scores.shape[1]):
        column = scores[:, label]
        order = sorted(range(len(column)), key=lambda row: (-column[row], row))
        candidates = [row for row in order if column[row] > np.float32(score_threshold)]
        of_class: list[int] = []
        for row in candidates[:max_per_class]:
            if all(iou(boxes[row], boxes[k]) <= np.float32(iou_threshold) for k in of_class):
                of_class.append(row)
        kept += [(float(column[row]), label, row) for row in of_class]
    return sorted(kept, key=lambda found: (-found[0], found[1], found[2]))[:max_detections]


def average_precision(found, truth, label, *, overlap=0.5) -> float:
    """Area under one class's precision-recall curve.

    Args:
        found: a (boxes, scores, labels) for each image.
        truth: a (boxes, labels) for each image.
        label: the class.
        overlap: IoU from which a detection is right, once for each object.
    """
    claims = sorted(
        (
            (float(score), image, box)
            for image, (boxes, scores, labels) in enumerate(found)
            for box, score, of in zip(boxes, scores, labels, strict=True)
            if of == label
        ),
        key=lambda claim: -claim[0],
    )
    objects = {
        (image, row): box
        for image, (boxes, labels) in enumerate(truth)
        for row, (box, of) in enumerate(zip(boxes, labels, strict=True))
        if of == label
    }
    total, right, area = len(objects), 0, 0.0
    for rank, (_, image, box) in enumerate(claims, start=1):
        hits = [key for key in objects if key[0] == image and iou(box, objects[key]) >= overlap]
        if hits:
            del objects[max(hits, key=lambda key: iou(box, objects[key]))]
            right += 1
            area += right / rank / total
    return area


def sample(
    regions, boxes, labels, order, *, samples, foreground_share, foreground_iou, background_iou
) -> list[tuple[int, int]]:
    """One image's sampled (region, its object or -1): _sample_rois of Fast R-CNN (minibatch.py).

    Where the release draws at random, the regions with the largest `order` are drawn.
    """
    foreground, background, owner = [], [], {}
    for row, region in enumerate(regions):
        if region[2] <= region[0] or region[3] <= region[1]:
            continue
        best, owner[row] = np.float32(0), -1
        for g, box in enumerate(boxes):
            if labels[g] >= 0 and iou(box, region) > best:
                best, owner[row] = iou(box, region), g
        if best >= foreground_iou:
            foreground.append(row)
        elif background_iou[0] <= best < background_iou[1]:
            background.append(row)
    most = min(round(foreground_share * samples), len(foreground))
    rest = min(samples - most, len(background))
    foreground.sort(key=lambda row: -order[row])
    background.sort(key=lambda row: -order[row])
    drawn = [(row, owner[row]) for row in foreground[:most]]
    return drawn + [(row, -1) for row in background[:rest]]


def region_offsets(region, box) -> list[float]:
    """What makes one region into a box: _compute_targets of Fast R-CNN (roidb.py)."""
    width, height = region[2] - region[0] + 1e-14, region[3] - region[1] + 1e-14
    box_width, box_height = box[2] - box[0] + 1e-14, box[3] - box[1] + 1e-14
    centre_x, centre_y = region[0] + 0.5 * width, region[1] + 0.5 * height
    box_x, box_y = box[0] + 0.5 * box_width, box[1] + 0.5 * box_height
    return [
        (box_x - centre_x) / width,
        (box_y - centre_y) / height,
        math.log(box_width / width),
        math.log(box_height / height),
    ]


def multi_task(logits, offsets, classes, targets) -> tuple[float, float]:
    """Fast R-CNN's two loss terms in float64, region by region (eq. 1-3)."""
    classification = localization = 0.0
    regions = 0
    for image in range(len(logits)):
        for row, c in enumerate(classes[image]):
            if c < 0:
                continue
            regions += 1
            scores = logits[image, row].astype("float64")
            classification += math.log(sum(math.exp(v) for v in scores)) - scores[c]
            if c > 0:
                for error in offsets[image, row, c - 1] - targets[image, row]:
                    size = abs(float(error))
                    localization += 0.5 * size**2 if size < 1 else size - 0.5
    return (classification / regions, localization / regions) if regions else (0.0, 0.0)
