import importlib.util
import json
from pathlib import Path

import pytest
from detectron2.config import CfgNode, get_cfg

from mask_transformers import add_mask_transformer_config, model_zoo

CHECKOUT = Path(__file__).resolve().parents[1]
ROOT = "MODEL.MASK_TRANSFORMER"


def _config():
    cfg = get_cfg()
    add_mask_transformer_config(cfg)
    return cfg


def _keys(node, prefix=""):
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, CfgNode):
            yield from _keys(value, name + ".")
        else:
            yield name, value


@pytest.fixture(scope="module")
def writer():
    path = CHECKOUT / "tools" / "write_config_reference.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_adding_twice_changes_nothing():
    cfg = _config()
    cfg.MODEL.MASK_TRANSFORMER.QUERIES = 5
    add_mask_transformer_config(cfg)
    assert cfg.MODEL.MASK_TRANSFORMER.QUERIES == 5


@pytest.mark.parametrize("name", model_zoo.names())
def test_a_dumped_config_loads_again(name, tmp_path):
    cfg = model_zoo.get_config(name)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again = _config()
    again.merge_from_file(str(tmp_path / "config.yaml"))
    # As JSON: lists come back where Detectron2 has tuples.
    assert json.dumps(dict(_keys(again))) == json.dumps(dict(_keys(cfg)))


def test_an_unknown_key_is_refused(tmp_path):
    (tmp_path / "typo.yaml").write_text("MODEL:\n  MASK_TRANSFORMER:\n    QUERYS: 5\n")
    with pytest.raises(KeyError, match=r"MODEL\.MASK_TRANSFORMER\.QUERYS"):
        _config().merge_from_file(str(tmp_path / "typo.yaml"))


def test_a_value_of_another_type_is_refused():
    with pytest.raises(ValueError, match="QUERIES"):
        _config().merge_from_list([f"{ROOT}.QUERIES", "many"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (f"{ROOT}.NUM_CLASSES", 0, rf"{ROOT}\.NUM_CLASSES must be at least 1, not 0"),
        (f"{ROOT}.QUERIES", 0, r"\.QUERIES must"),
        (f"{ROOT}.CLASS_IDS", "gaps", r"\.CLASS_IDS is 'gaps'; choose one of"),
        (f"{ROOT}.MASK_DIM", -1, r"\.MASK_DIM must"),
        (f"{ROOT}.SIZE_DIVISIBILITY", -32, r"\.SIZE_DIVISIBILITY must"),
        (f"{ROOT}.HIDDEN_DIM", 100, r"\.HIDDEN_DIM 100 is not a multiple of .*HEADS 8"),
        (f"{ROOT}.HIDDEN_DIM", 72, r"\.HIDDEN_DIM is 72"),
        (f"{ROOT}.PIXEL_DECODER.HEADS", 7, r"HIDDEN_DIM.*\.PIXEL_DECODER\.HEADS 7"),
        (f"{ROOT}.TRANSFORMER_DECODER.HEADS", 3, r"HIDDEN_DIM.*\.TRANSFORMER_DECODER\.HEADS 3"),
        (f"{ROOT}.PIXEL_DECODER.POINTS", 0, r"\.PIXEL_DECODER\.POINTS must"),
        (f"{ROOT}.PIXEL_DECODER.LAYERS", 0, r"\.PIXEL_DECODER\.LAYERS must"),
        (f"{ROOT}.TRANSFORMER_DECODER.LAYERS", -1, r"\.TRANSFORMER_DECODER\.LAYERS must"),
        (f"{ROOT}.PIXEL_DECODER.IN_FEATURES", ["res2", "p7"], r"\.IN_FEATURES names \['p7'\]"),
        (f"{ROOT}.PIXEL_DECODER.IN_FEATURES", ["res5", "res4"], r"\.IN_FEATURES.*fine to coarse"),
        (f"{ROOT}.PIXEL_DECODER.NAME", "FPM", r"\.PIXEL_DECODER\.NAME is 'FPM'; known names"),
        (f"{ROOT}.TRANSFORMER_DECODER.NAME", "X", r"\.TRANSFORMER_DECODER\.NAME is 'X'; known"),
        (f"{ROOT}.LOSS.POINTS", 0, r"\.LOSS\.POINTS must"),
        (f"{ROOT}.LOSS.IMPORTANCE_RATIO", 1.5, r"\.IMPORTANCE_RATIO must be in \[0, 1\], not 1\.5"),
        (f"{ROOT}.LOSS.OVERSAMPLE_RATIO", 0.5, r"\.OVERSAMPLE_RATIO must be at least 1"),
        (f"{ROOT}.LOSS.CLASS_WEIGHT", -2.0, r"\.CLASS_WEIGHT must"),
        (f"{ROOT}.LOSS.DICE_WEIGHT", float("nan"), r"\.DICE_WEIGHT must"),
        (f"{ROOT}.LOSS.MASK_ID_WEIGHT", -0.3, r"\.MASK_ID_WEIGHT must"),
        (f"{ROOT}.LOSS.INSTANCE_WEIGHT", -1.0, r"\.INSTANCE_WEIGHT must"),
        (f"{ROOT}.LOSS.SEMANTIC_WEIGHT", -1.0, r"\.SEMANTIC_WEIGHT must"),
        (f"{ROOT}.LOSS.NO_OBJECT_WEIGHT", -0.1, r"\.NO_OBJECT_WEIGHT must"),
        (f"{ROOT}.TEST.TASKS", [], r"\.TEST\.TASKS is \[\]; choose"),
        (f"{ROOT}.TEST.TASKS", ["panoptik"], r"\.TEST\.TASKS .*'instance'"),
        (f"{ROOT}.TEST.OVERLAP_THRESHOLD", 80.0, r"\.OVERLAP_THRESHOLD must be in"),
        (f"{ROOT}.TEST.THING_THRESHOLD", 1.5, r"\.THING_THRESHOLD must be in"),
        (f"{ROOT}.TEST.STUFF_THRESHOLD", -0.5, r"\.STUFF_THRESHOLD must be in"),
        (f"{ROOT}.TEST.PIXEL_THRESHOLD", 40.0, r"\.PIXEL_THRESHOLD must be in"),
        (f"{ROOT}.PIXEL_DECODER.DROP_PATH_RATE", 1.0, r"\.PIXEL_.*_RATE must be in \[0, 1\), not"),
        (
            f"{ROOT}.TRANSFORMER_DECODER.DROP_PATH_RATE",
            1.0,
            r"\.TRANSF.*_RATE must be in \[0, 1\),",
        ),
        (f"{ROOT}.TRANSFORMER_DECODER.DROP_PATH_RATE", -0.1, r"\.DROP_PATH_RATE must be in"),
        (f"{ROOT}.TEST.OBJECT_MASK_THRESHOLD", -0.1, r"\.OBJECT_MASK_THRESHOLD must be in"),
        ("MODEL.PIXEL_STD", [1.0, 1.0], r"MODEL\.PIXEL_STD must hold one positive number"),
        ("MODEL.PIXEL_STD", [1.0, 0.0, 1.0], r"MODEL\.PIXEL_STD must hold one positive number"),
    ],
)
def test_impossible_values_name_their_key(tiny_model, key, value, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(keys={key: value})


def test_a_number_of_classes_that_is_not_that_of_the_data(tiny_model):
    key = f"{ROOT}.NUM_CLASSES"
    with pytest.raises(
        ValueError, match=r"NUM_CLASSES is 5, but data set 'coco_2017_val_panoptic'"
    ):
        tiny_model(keys={key: 5, "DATASETS.TEST": ("coco_2017_val_panoptic",)})


def test_category_ids_that_are_no_classes(tiny_model):
    keys = {f"{ROOT}.CLASS_IDS": "dataset", "DATASETS.TEST": ("coco_2017_val_panoptic",)}
    with pytest.raises(ValueError, match=r"NUM_CLASSES is 200, .*'coco_2017_val_panoptic'.* 200$"):
        tiny_model("detr_R50_coco", keys={**keys, f"{ROOT}.NUM_CLASSES": 200})
    assert tiny_model("detr_R50_coco", keys={**keys, f"{ROOT}.NUM_CLASSES": 201})


def test_docs_config_md_is_up_to_date(writer):
    reference = CHECKOUT / "docs" / "config.md"
    assert reference.is_file(), f"run python {writer.__file__}"
    assert reference.read_text() == writer.reference(), (
        "docs/config.md is stale; run python tools/write_config_reference.py"
    )


def test_docs_config_md_has_every_key_with_its_default(writer):
    before = dict(_keys(get_cfg()))
    added = {name: value for name, value in _keys(_config()) if before.get(name) != value}
    documented = {name: entry.default for name, entry in writer.entries().items()}
    assert documented == {name: repr(value) for name, value in added.items()}


def test_a_key_without_comment_is_refused(writer):
    source = "def f(cfg):\n    # Fine.\n    cfg.A = 1\n\n    cfg.B = 2\n"
    with pytest.raises(ValueError, match=r"line 5: B has no comment"):
        writer.parse(source)


def test_aliases_nodes_and_long_comments_are_understood(writer):
    source = (
        "def f(cfg):\n    # The node.\n    cfg.M.T = CN()\n    node = cfg.M.T\n"
        "    # Not this one.\n\n    # One | two,\n    # three.\n    node.KEY = [1, 2]\n"
    )
    nodes, entries = writer.parse(source)
    assert nodes == {"M.T": "The node."}
    assert entries == {"M.T.KEY": writer.Entry("[1, 2]", "One | two, three.")}


def test_the_script_writes_and_checks(writer, tmp_path, capsys):
    path = tmp_path / "config.md"
    assert writer.main(["--check", "--output", str(path)]) == 1
    assert "stale" in capsys.readouterr().err
    assert writer.main(["--output", str(path)]) == 0
    assert writer.main(["--check", "--output", str(path)]) == 0
    assert path.read_text().startswith("# Config reference")
    assert [p.name for p in tmp_path.iterdir()] == ["config.md"]
