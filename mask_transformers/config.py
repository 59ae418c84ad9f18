"""Every config key that mask_transformers adds to Detectron2's, one comment each.

The config reference (docs/config.md) is generated from the comments in this file: the comment
lines directly above a key describe it.
"""

from detectron2.config import CfgNode as CN


def add_mask_transformer_config(cfg: CN) -> None:
    """Add the keys of this package to ``cfg`` in place; a second call changes nothing."""
    if "MASK_TRANSFORMER" in cfg.MODEL:
        return
    _add_model_keys(cfg)
    _add_backbone_keys(cfg)
    _add_dataset_keys(cfg)
    _add_input_keys(cfg)
    _add_solver_keys(cfg)


def _add_model_keys(cfg: CN) -> None:
    # Root of the keys of all mask transformers.
    cfg.MODEL.MASK_TRANSFORMER = CN()
    node = cfg.MODEL.MASK_TRANSFORMER
    # Number of classes K that the class head tells apart, without no-object.
    node.NUM_CLASSES = 133
    # What the class head counts: "contiguous" classes 0 to K-1, or the "dataset"'s own category ids
    # with their gaps, as in the published DETR models (K is 91 for COCO, 250 for COCO panoptic).
    node.CLASS_IDS = "contiguous"
    # Number of queries Q (slots of the memory in MaX-DeepLab): an upper bound on the segments found
    # in one image. PerPixelBaseline has one for each class instead.
    node.QUERIES = 100
    # Width C of the queries and of the pixel decoder, which is WIDTH in "AxialPixelDecoder"; in
    # MaX-DeepLab of the memory.
    node.HIDDEN_DIM = 256
    # Width of the mask embeddings and of the mask features they are multiplied with.
    node.MASK_DIM = 256
    # Images are padded (right and bottom) to a multiple of this many pixels; 0 pads only to the
    # largest image of the batch. MaX- and kMaX-DeepLab pad to one pixel more than a multiple.
    node.SIZE_DIVISIBILITY = 32
    # MaX- and kMaX-DeepLab: height and width that smaller images are padded to, as published
    # ([641, 641] and [1281, 1281] for COCO); [] for no more than SIZE_DIVISIBILITY asks.
    node.PADDED_SIZE = []

    # Keys of the pixel decoder; MaX-DeepLab has none, see MODEL.MAX_RESNET.
    node.PIXEL_DECODER = CN()
    # Registered name of the pixel decoder.
    node.PIXEL_DECODER.NAME = "DeformablePixelDecoder"
    # Backbone features read by the pixel decoder, fine to coarse. The transformer decoder looks at
    # all but the finest (DeformablePixelDecoder) or at the coarsest alone (the others). DETR's
    # encoder reads the coarsest, its mask head the others.
    node.PIXEL_DECODER.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    # Number of transformer encoder layers; FPNPixelDecoder has none.
    node.PIXEL_DECODER.LAYERS = 6
    # Attention heads.
    node.PIXEL_DECODER.HEADS = 8
    # Sampling points per head and level of deformable attention.
    node.PIXEL_DECODER.POINTS = 4
    # Width of the feed-forward network of the encoder layers.
    node.PIXEL_DECODER.FFN_DIM = 1024
    # Dropout in the encoder layers of "TransformerFPNPixelDecoder" and of DETR.
    node.PIXEL_DECODER.DROPOUT = 0.1
    # "AxialPixelDecoder": blocks at the strides of IN_FEATURES, coarse to fine: axial attention at
    # the two coarsest, bottlenecks at the others.
    node.PIXEL_DECODER.BLOCKS = [1, 5, 1, 1]
    # "AxialPixelDecoder": width at the coarsest stride, half of it at the next, and so on.
    node.PIXEL_DECODER.WIDTH = 512
    # "AxialPixelDecoder": stochastic depth, probability of leaving out a block in training.
    node.PIXEL_DECODER.DROP_PATH_RATE = 0.0

    # Keys of the transformer decoder. MaX-DeepLab has none, but reads HEADS and FFN_DIM for its
    # dual-path transformers, and MASK_SCALE.
    node.TRANSFORMER_DECODER = CN()
    # Registered name of the transformer decoder.
    node.TRANSFORMER_DECODER.NAME = "MaskedAttentionDecoder"
    # Number of decoder layers: 9 is nine layers.
    node.TRANSFORMER_DECODER.LAYERS = 9
    # Attention heads.
    node.TRANSFORMER_DECODER.HEADS = 8
    # Width of the feed-forward network of the decoder layers.
    node.TRANSFORMER_DECODER.FFN_DIM = 2048
    # Dropout in the layers of "StandardDecoder" and of DETR.
    node.TRANSFORMER_DECODER.DROPOUT = 0.1
    # "KMeansDecoder": stochastic depth, probability of leaving out an update in training.
    node.TRANSFORMER_DECODER.DROP_PATH_RATE = 0.0
    # "KMeansDecoder" and MaX-DeepLab: deviation of the mask logits that training starts from. A
    # short training has no time to enlarge the published 0.1 until masks are sure.
    node.TRANSFORMER_DECODER.MASK_SCALE = 0.1
    # "KMeansDecoder": how queries look at pixels, as cluster centres do in one "kmeans" step, or by
    # ordinary "softmax" cross-attention, an ablation.
    node.TRANSFORMER_DECODER.CROSS_ATTENTION = "kmeans"
    # "MaskedAttentionDecoder": whether queries look only where they saw their mask; False is plain
    # cross-attention, an ablation.
    node.TRANSFORMER_DECODER.MASKED = True

    # Keys of DETR's mask head.
    node.MASK_HEAD = CN()
    # Whether DETR predicts masks beside boxes.
    node.MASK_HEAD.ENABLED = False
    # Train the mask head alone, on the detector of MODEL.WEIGHTS; False trains both.
    node.MASK_HEAD.FREEZE_DETECTOR = False

    # Which query learns which target: "hungarian" (least cost) or, in MaskFormer with as many
    # queries as classes, "fixed" (query i stands for class i).
    node.MATCHER = "hungarian"

    # Keys of matching and losses.
    node.LOSS = CN()
    # Weight of the class term, in the matching cost and in the loss.
    node.LOSS.CLASS_WEIGHT = 2.0
    # Weight of the per-pixel mask term, in the cost and in the loss: binary cross entropy in
    # Mask2Former, focal in MaskFormer and DETR (which matches by boxes alone).
    node.LOSS.MASK_WEIGHT = 5.0
    # Weight of the dice term, in the cost (not in DETR) and in the loss.
    node.LOSS.DICE_WEIGHT = 5.0
    # Weight of the distance (L1) of boxes in DETR, in the cost and in the loss.
    node.LOSS.BOX_WEIGHT = 5.0
    # Weight of the generalised IoU of boxes in DETR, in the cost and in the loss.
    node.LOSS.GIOU_WEIGHT = 2.0
    # Weight of the cross entropy over mask ids of every pixel, in MaX- and kMaX-DeepLab.
    node.LOSS.MASK_ID_WEIGHT = 0.3
    # Weight of pixel-wise instance discrimination, in MaX- and kMaX-DeepLab.
    node.LOSS.INSTANCE_WEIGHT = 1.0
    # Weight of the auxiliary semantic head, in MaX- and kMaX-DeepLab.
    node.LOSS.SEMANTIC_WEIGHT = 1.0
    # Weight of no-object in the class cross entropy; not in MaX- and kMaX-DeepLab, where masks
    # decide it.
    node.LOSS.NO_OBJECT_WEIGHT = 0.1
    # Number of points P at which Mask2Former compares masks; MaskFormer takes whole masks. In MaX-
    # and kMaX-DeepLab the pixels drawn for instance discrimination (4096), in kMaX-DeepLab for the
    # semantic head, too.
    node.LOSS.POINTS = 12544
    # Points drawn per point kept, for importance sampling.
    node.LOSS.OVERSAMPLE_RATIO = 3.0
    # Share of the points that are the most uncertain ones; the rest is uniformly random.
    node.LOSS.IMPORTANCE_RATIO = 0.75
    # Whether every decoder layer is supervised, not only the last one; always in kMaX-DeepLab, and
    # without effect in MaX-DeepLab, which predicts once.
    node.LOSS.DEEP_SUPERVISION = True

    # Keys of inference.
    node.TEST = CN()
    # Results to compute: any of "panoptic", "instance", "semantic", "box"; "semantic" not in DETR.
    node.TEST.TASKS = ["panoptic"]
    # Panoptic: queries whose class score is not above this are dropped; not in MaX- and
    # kMaX-DeepLab.
    node.TEST.OBJECT_MASK_THRESHOLD = 0.8
    # Panoptic: segments that keep less than this share of their mask are dropped; not in DETR, and
    # in MaX-DeepLab only with MASK_WISE.
    node.TEST.OVERLAP_THRESHOLD = 0.8
    # Panoptic in MaX- and kMaX-DeepLab: things are dropped whose class score is below this.
    node.TEST.THING_THRESHOLD = 0.7
    # Panoptic in MaX- and kMaX-DeepLab: the same for stuff.
    node.TEST.STUFF_THRESHOLD = 0.5
    # Panoptic, instance and box in MaX- and kMaX-DeepLab: a mask has the pixels that it gives at
    # least this probability.
    node.TEST.PIXEL_THRESHOLD = 0.4
    # Panoptic in MaX-DeepLab: place masks one after the other, as in kMaX-DeepLab, in place of an
    # argmax for each pixel.
    node.TEST.MASK_WISE = False
    # Panoptic in MaX-DeepLab without MASK_WISE: things of fewer pixels are dropped, in an image of
    # 640x480; in proportion to the area in others.
    node.TEST.THING_AREA = 100.0
    # The same for stuff.
    node.TEST.STUFF_AREA = 1600.0


def _add_backbone_keys(cfg: CN) -> None:
    # Keys of the backbone "build_timm_backbone", and of the first stages (res2 to res4) of
    # "build_max_timm_backbone", the backbone of small MaX-DeepLab models.
    cfg.MODEL.TIMM = CN()
    # Name of a timm model that supports features_only.
    cfg.MODEL.TIMM.NAME = "tf_efficientnet_lite0"
    # Initial weights: "" for random ones, "imagenet" for those that come with a package of the
    # index or else timm's own download, or the path of a state dict.
    cfg.MODEL.TIMM.WEIGHTS = ""
    # Names of the features handed on, of "res2" (stride 4), "res3", ... : "resN" has stride 2^N.
    cfg.MODEL.TIMM.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # Batch norms: "BN" trains them, "FrozenBN" keeps statistics and affine parameters.
    cfg.MODEL.TIMM.NORM = "BN"

    # Keys of the backbone "build_swin_backbone".
    cfg.MODEL.SWIN = CN()
    # Size of the Swin Transformer: "tiny", "small", "base" or "large".
    cfg.MODEL.SWIN.VARIANT = "tiny"
    # Side of the attention windows in tokens: 7, or 12 for weights trained on 384 pixels.
    cfg.MODEL.SWIN.WINDOW_SIZE = 7
    # Stochastic depth: probability of leaving out a branch of the last block in training; it
    # increases linearly from 0 in the first block.
    cfg.MODEL.SWIN.DROP_PATH_RATE = 0.3
    # Initial weights: "" for random ones, "imagenet" (ImageNet-1K) or "imagenet22k" for timm's
    # download, or the path of a state dict in timm's or the Swin authors' names.
    cfg.MODEL.SWIN.WEIGHTS = ""
    # Recompute the blocks in the backward pass: less memory, more time, the same results.
    cfg.MODEL.SWIN.ACTIVATION_CHECKPOINTING = False

    # Keys of the backbone "build_convnext_backbone".
    cfg.MODEL.CONVNEXT = CN()
    # Size of the ConvNeXt: "tiny", "small", "base" or "large".
    cfg.MODEL.CONVNEXT.VARIANT = "tiny"
    # Stochastic depth: probability of leaving out the last block in training; it increases linearly
    # from 0 in the first block.
    cfg.MODEL.CONVNEXT.DROP_PATH_RATE = 0.3
    # Initial weights: "" for random ones, "imagenet" (ImageNet-1K) or "imagenet22k" for timm's
    # download, or the path of a state dict in timm's or the ConvNeXt authors' names.
    cfg.MODEL.CONVNEXT.WEIGHTS = ""
    # Recompute the blocks in the backward pass: less memory, more time, the same results.
    cfg.MODEL.CONVNEXT.ACTIVATION_CHECKPOINTING = False

    # Keys of the backbone "build_max_resnet_backbone" of MaX-DeepLab, and of its decoder. Of them
    # "build_max_timm_backbone" takes the last of BLOCKS, for res5, and has no STACKS.
    cfg.MODEL.MAX_RESNET = CN()
    # Convolutional blocks: "bottleneck" with an Inception stem (MaX-DeepLab-S), or "basic" with
    # a stage at stride 2 more, as in wide ResNets (L).
    cfg.MODEL.MAX_RESNET.BLOCK = "bottleneck"
    # Blocks of res2 to res5.
    cfg.MODEL.MAX_RESNET.BLOCKS = [3, 4, 6, 3]
    # Channels of the stem; a stage with stride s has s times as many, res5 32 times.
    cfg.MODEL.MAX_RESNET.WIDTH = 64
    # Heads of axial attention, in blocks of res4, res5 and of decoders at stride 16.
    cfg.MODEL.MAX_RESNET.HEADS = 8
    # Stages with a dual-path transformer after every block: ["res5"], or ["res4", "res5"] (L).
    cfg.MODEL.MAX_RESNET.TRANSFORMER_STAGES = ["res5"]
    # Hourglasses (strides 8, 4, 8, 16) in the backbone, with one block each step: 0, in L 1.
    cfg.MODEL.MAX_RESNET.STACKS = 0
    # Hourglasses of the decoder, before the last way down to stride 4: 0, in L 1. With one or more
    # the semantic head looks at the first map with stride 4, without at the backbone.
    cfg.MODEL.MAX_RESNET.DECODER_STACKS = 0
    # Blocks of every step of the decoder: 1, in L 3.
    cfg.MODEL.MAX_RESNET.DECODER_BLOCKS = 1
    # Stochastic depth: probability of leaving out a branch in training, of the blocks and
    # transformers of res5 and of the decoder at stride 16.
    cfg.MODEL.MAX_RESNET.DROP_PATH_RATE = 0.0
    # Recompute blocks with axial attention in the backward pass: less memory, more time, the same
    # results.
    cfg.MODEL.MAX_RESNET.ACTIVATION_CHECKPOINTING = False

    # Stem of "build_resnet_deeplab_backbone": "deeplab" (three 3x3 convolutions, the c of R101c) or
    # "basic".
    cfg.MODEL.RESNETS.STEM_TYPE = "deeplab"
    # Dilation of res4 of "build_resnet_deeplab_backbone".
    cfg.MODEL.RESNETS.RES4_DILATION = 1
    # Dilations of the three blocks of res5 of "build_resnet_deeplab_backbone", times RES5_DILATION.
    cfg.MODEL.RESNETS.RES5_MULTI_GRID = [1, 2, 4]


def _add_dataset_keys(cfg: CN) -> None:
    # Folder of one's own data ("" for none), as set by --data; its data sets are registered again
    # whenever the config is used.
    cfg.DATASETS.FOLDER = ""
    # What to take from DATASETS.FOLDER: "panoptic", "instance", "semantic", "box"; "" finds out.
    cfg.DATASETS.FOLDER_TASK = ""
    # Names of the thing classes in DATASETS.FOLDER, in the order of the model's classes, as set by
    # --data: with them a model knows its classes on machines without the data.
    cfg.DATASETS.FOLDER_THINGS = []
    # Names of the stuff classes, which come after the things; all classes of semantic data.
    cfg.DATASETS.FOLDER_STUFF = []


def _add_input_keys(cfg: CN) -> None:
    # Annotations read for training: "panoptic", "instance", "semantic", or "box" (DETR without a
    # mask head).
    cfg.INPUT.ANNOTATIONS = "panoptic"
    # Large-scale jittering: resize by a random scale, crop or leave smaller.
    cfg.INPUT.LSJ = CN()
    # Use large-scale jittering in place of INPUT.MIN_SIZE_TRAIN and INPUT.CROP.
    cfg.INPUT.LSJ.ENABLED = False
    # Side, in pixels, of the square that is jittered around and cropped to.
    cfg.INPUT.LSJ.IMAGE_SIZE = 1024
    # Height and width to jitter around and to crop to where that is no square; [] for IMAGE_SIZE.
    cfg.INPUT.LSJ.IMAGE_SHAPE = []
    # Smallest random scale.
    cfg.INPUT.LSJ.MIN_SCALE = 0.1
    # Largest random scale.
    cfg.INPUT.LSJ.MAX_SCALE = 2.0
    # Crops in which one class covers more than this share of the labelled pixels are drawn again,
    # up to ten times; below 1 only with INPUT.ANNOTATIONS "semantic".
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0
    # DETR's augmentation: INPUT.CROP, with probability 1/2 and after a resize to a shortest side of
    # 400, 500 or 600, comes before the resize to INPUT.MIN_SIZE_TRAIN, not after it.
    cfg.INPUT.CROP.BEFORE_RESIZE = False
    # Colour jitter in brightness, contrast, saturation and hue (semantic recipe).
    cfg.INPUT.COLOR_JITTER = False
    # Panoptic copy-paste, of kMaX-DeepLab: probability that a training image receives segments of
    # another one, each with probability 1/2; stuff of one class stays one segment. Not for
    # INPUT.ANNOTATIONS "box"; needs INPUT.LSJ, or an absolute INPUT.CROP after the resize.
    cfg.INPUT.COPY_PASTE = 0.0
    # Random flips are INPUT.RANDOM_FLIP; this adds a second, vertical one and quarter turns, for
    # images without an up (microscopy, aerial).
    cfg.INPUT.RANDOM_ROTATE90 = False


def _add_solver_keys(cfg: CN) -> None:
    # Optimizer: "AdamW" or "SGD".
    cfg.SOLVER.OPTIMIZER = "AdamW"
    # Learning rate of the backbone relative to SOLVER.BASE_LR.
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    # Weight decay of embeddings (learned queries, levels, positions).
    cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.0
    # Exponent of the schedule "WarmupPolyLR".
    cfg.SOLVER.POLY_POWER = 0.9
    # Time budget of the training loop in minutes; 0 means none. The schedule then follows the time
    # that has passed (or the iterations, where they are ahead), training stops when it is over,
    # and the final checkpoint and evaluation come on top.
    cfg.SOLVER.MAX_MINUTES = 0.0
