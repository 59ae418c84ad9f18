"""Videos, frame by frame."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from ..output_files import write_atomically

DEFAULT_FRAME_RATE = 25.0  # frames per second of videos that do not tell theirs


class UnreadableVideo(ValueError):
    """A video file of which not one frame can be decoded."""


def draw_video(source: Path, target: Path, draw: Callable[[np.ndarray], np.ndarray]) -> int:
    """Write ``source`` with every frame replaced by ``draw(frame)`` (BGR to RGB); the frames.

    One frame is held at a time, and ``target`` appears when it is complete. The sound is lost.
    UnreadableVideo: there is no first frame. OSError: the video cannot be written.
    """
    capture = cv2.VideoCapture(str(source))
    try:
        readable, frame = capture.read()
        if not readable:
            raise UnreadableVideo(f"video file {source} cannot be read")
        rate = capture.get(cv2.CAP_PROP_FPS)
        rate = rate if 0 < rate < 1000 else DEFAULT_FRAME_RATE
        frames = 0

        def write(path: Path) -> None:
            nonlocal frames, readable, frame
            drawn = draw(frame)
            writer = _video_writer(path, rate, drawn)
            while readable:
                writer.write(np.ascontiguousarray(drawn[:, :, ::-1]))
                frames += 1
                readable, frame = capture.read()
                drawn = draw(frame) if readable else drawn
            writer.release()

        write_atomically(target, write)
        return frames
    finally:
        capture.release()


def _video_writer(path: Path, rate: float, frame: np.ndarray) -> cv2.VideoWriter:
    size = (frame.shape[1], frame.shape[0])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    if not writer.isOpened():
        raise OSError(f"OpenCV cannot write an mp4 video to {path}")
    return writer
