"""Make COCO's labels of pixels, with the 133 panoptic classes.

Needs panoptic_{train,val}2017/ and annotations/panoptic_{train,val}2017.json.
"""

import sys

from mask_transformers.data.preparation.coco import conversions
from mask_transformers.data.preparation.command import main

if __name__ == "__main__":
    sys.exit(main(__doc__, "coco", conversions))
