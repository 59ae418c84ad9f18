"""The one requirement that no package index resolves: Detectron2."""


def require_detectron2() -> None:
    """ImportError says in one sentence what to install when Detectron2 is missing or broken."""
    try:
        import detectron2.config
        import detectron2.modeling  # noqa: F401
    except Exception as error:
        raise ImportError(
            "mask_transformers needs a working Detectron2, but importing it failed "
            f"({type(error).__name__}: {error}); run `make setup` in the checkout, or install "
            "Detectron2 as its INSTALL.md says."
        ) from error
