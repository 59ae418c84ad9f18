"""Convert Cityscapes: train ids, panoptic and instance json files, all beside gtFine.

Needs leftImg8bit/ and gtFine/ with their labelIds and instanceIds.
"""

import sys

from mask_transformers.data.preparation.cityscapes import conversions
from mask_transformers.data.preparation.command import main

if __name__ == "__main__":
    sys.exit(main(__doc__, "cityscapes", conversions))
