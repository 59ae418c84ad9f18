"""Names of Swin Transformers in official releases; our backbone has the same, but no buffers."""

# Both follow from the window size and the size of the image.
RULES: list[tuple[str, str | None]] = [
    (r"backbone\.(?:.*\.)?(?:relative_position_index|attn_mask)$", None)
]
