def require_detectron2() -> None:
    import detectron2  # noqa: F401
